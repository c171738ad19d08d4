#include "sae/start.h"

#include <gtest/gtest.h>

#include "tests/threads.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

constexpr int64_t kWidth = 24, kLatents = 203, kBatch = 256;

Recipe recipe(Recipe::Start start, uint64_t seed = 1) {
  Recipe r;
  r.batch = kBatch;
  r.steps = 100;
  r.start = start;
  r.start_l0 = 6;
  r.seed = seed;
  return r;
}

struct Started : TrainerFixture {
  std::vector<float> x;

  Started(const Recipe& r, DType precision = DType::kF32, int64_t tile = kBatch)
      : TrainerFixture(r, tile, kWidth, kLatents, precision), x(Dictionary(kWidth, 64, 4, 9).rows(0, kBatch)) {
    feed(x);
    start_training(ctx, trainer->state(), trainer->workspace(), r);
  }
  const SaeState& state() { return trainer->state(); }
};

void expect_unit_rows(const std::vector<float>& W_dec) {
  for (int64_t i = 0; i < kLatents; ++i) {
    double square = 0;
    for (int64_t c = 0; c < kWidth; ++c) square += std::pow(double(W_dec[i * kWidth + c]), 2);
    EXPECT_NEAR(std::sqrt(square), 1, 1e-6) << "row " << i;
  }
}

void expect_all_zero(Tensor t) {
  const auto* bytes = reinterpret_cast<const char*>(t.ptr);
  for (size_t i = 0; i < t.bytes(); ++i) ASSERT_EQ(bytes[i], 0) << "byte " << i;
}

TEST(Start, Random) {
  Started s(recipe(Recipe::Start::kRandom));
  const SaeParameters& p = s.state().p;
  const auto W_dec = values(p.W_dec), W_enc = values(p.W_enc);
  expect_unit_rows(W_dec);
  for (int64_t i = 0; i < kLatents; ++i)
    for (int64_t c = 0; c < kWidth; ++c) ASSERT_EQ(W_enc[c * kLatents + i], W_dec[i * kWidth + c]);
  EXPECT_EQ(values(p.threshold), std::vector<float>(kLatents, 0.001f));
  EXPECT_EQ(values(p.b_enc), std::vector<float>(kLatents));
  EXPECT_EQ(values(p.b_dec), std::vector<float>(kWidth));

  // Uniform on [-a, a] before the scaling: no direction is preferred, and rows do not repeat. The mean of 203 * 24
  // elements of standard deviation 24^-1/2 is within 4 standard errors, 0.012; the largest cosine of two of 203 random
  // rows in 24 dimensions stays below 0.9.
  double sum = 0, largest = 0;
  for (const float w : W_dec) sum += w;
  EXPECT_NEAR(sum / double(W_dec.size()), 0, 0.012);
  for (int64_t i = 0; i < kLatents; ++i)
    for (int64_t j = 0; j < i; ++j) {
      double dot = 0;
      for (int64_t c = 0; c < kWidth; ++c) dot += double(W_dec[i * kWidth + c]) * W_dec[j * kWidth + c];
      largest = std::max(largest, std::fabs(dot));
    }
  EXPECT_LT(largest, 0.9);
}

TEST(Start, CountersAndMomentsAreZero) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    Started s(recipe(start));
    const SaeState& t = s.state();
    for (const Tensor& zero : {t.second_moment.W_enc, t.second_moment.W_dec, t.second_moment.b_enc,
                               t.second_moment.b_dec, t.second_moment.threshold, t.fired, t.idle, t.fired_total,
                               t.sum_error, t.sum_l0, t.sum_penalty, t.sum_x, t.sum_x2, t.p.b_enc})
      expect_all_zero(zero);
  }
}

TEST(Start, TheSeedReproduces) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    Started a(recipe(start, 1)), b(recipe(start, 1)), c(recipe(start, 2));
    EXPECT_EQ(values(a.state().p.W_dec), values(b.state().p.W_dec));
    EXPECT_EQ(values(a.state().p.W_enc), values(b.state().p.W_enc));
    EXPECT_EQ(values(a.state().p.threshold), values(b.state().p.threshold));
    EXPECT_NE(values(a.state().p.W_dec), values(c.state().p.W_dec));
    const Threads one(1);
    Started d(recipe(start, 1));
    EXPECT_EQ(values(a.state().p.W_enc), values(d.state().p.W_enc));
  }
}

TEST(Start, FromData) {
  Started s(recipe(Recipe::Start::kData));
  const SaeParameters& p = s.state().p;
  const auto W_dec = values(p.W_dec), W_enc = values(p.W_enc), theta = values(p.threshold), b_dec = values(p.b_dec);
  expect_unit_rows(W_dec);

  const double gain = double(W_enc[0]) / W_dec[0];
  EXPECT_GT(gain, 0.02);
  EXPECT_LT(gain, 1);  // thousands of correlated rows reconstruct too much
  for (int64_t i = 0; i < kLatents; ++i) {
    EXPECT_EQ(theta[i], theta[0]);
    for (int64_t c = 0; c < kWidth; ++c)
      ASSERT_NEAR(W_enc[c * kLatents + i], gain * W_dec[i * kWidth + c], 1e-6 * gain);
  }
  EXPECT_GT(theta[0], 0);

  for (int64_t c = 0; c < kWidth; ++c) {
    double sum = 0;
    for (int64_t r = 0; r < kBatch; ++r) sum += s.x[r * kWidth + c];
    EXPECT_NEAR(b_dec[c], sum / kBatch, 1e-7) << c;
  }

  // The first threshold leaves start_l0 active: the quantile is exact, but a z within rounding of it may go either way.
  const Reference now(s.x, p);
  EXPECT_NEAR(mean(now.l0), 6, 2.0 / kBatch);

  // Gain one: what is left is orthogonal to what was explained (x_hat - b_dec); and that explains something.
  double dot = 0, explained = 0, residual = 0;
  for (size_t i = 0; i < s.x.size(); ++i) {
    const double hat = now.x_hat[i] - b_dec[i % kWidth], left = s.x[i] - now.x_hat[i];
    dot += hat * left, explained += hat * hat, residual += left * left;
  }
  EXPECT_NEAR(dot, 0, 1e-4 * explained);
  EXPECT_LT(residual / kBatch, 0.95 * variance(s.x, kWidth));
}

// A tile is enough for the threshold and the gain, while b_dec is the mean of the whole batch.
TEST(Start, FromDataByTile) {
  const int64_t tile = 100;
  Started s(recipe(Recipe::Start::kData), DType::kF32, tile);
  const SaeParameters& p = s.state().p;
  const std::vector<float> first(s.x.begin(), s.x.begin() + tile * kWidth);
  EXPECT_NEAR(mean(Reference(first, p).l0), 6, 2.0 / tile);
  double sum = 0;
  for (int64_t r = 0; r < kBatch; ++r) sum += s.x[r * kWidth];
  EXPECT_NEAR(p.b_dec.data<float>()[0], sum / kBatch, 1e-7);
}

// More latents asked for than there are, or fewer than one in the whole tile: clamped, and finite.
TEST(Start, ExtremeStartL0) {
  for (const double l0 : {0.0, 1e-6, double(kLatents), 1e9}) {
    Recipe r = recipe(Recipe::Start::kData);
    r.start_l0 = l0;
    Started s(r);
    for (const Tensor& t : {s.state().p.W_enc, s.state().p.threshold})
      for (const float v : values(t)) ASSERT_TRUE(std::isfinite(v)) << l0;
    EXPECT_GT(s.state().p.threshold.data<float>()[0], 0) << l0;
  }
}

// Nothing varies: no quantile, no least squares; still a start that training can leave.
TEST(Start, ConstantData) {
  Recipe r = recipe(Recipe::Start::kData);
  TrainerFixture f(r, kBatch, kWidth, kLatents, DType::kF32);
  f.feed(std::vector<float>(kBatch * kWidth, 0.25f));
  start_training(f.ctx, f.trainer->state(), f.trainer->workspace(), r);
  for (const Tensor& t : {f.trainer->state().p.W_enc, f.trainer->state().p.threshold})
    for (const float v : values(t)) ASSERT_TRUE(std::isfinite(v));
}

TEST(Start, Bf16CopiesAreInStep) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    Started s(recipe(start), DType::kBF16);
    for (const auto& [copy, weight] :
         {std::pair{s.state().W_enc16, s.state().p.W_enc}, {s.state().W_dec16, s.state().p.W_dec}})
      for (int64_t i = 0; i < weight.size(); ++i)
        ASSERT_EQ(copy.data<BF16>()[i].bits, to_bf16(weight.data<float>()[i]).bits) << i;
  }
}

TEST(Start, FromGivenParameters) {
  Started source(recipe(Recipe::Start::kData));
  TrainerFixture f(recipe(Recipe::Start::kRandom), kBatch, kWidth, kLatents, DType::kBF16);
  start_from(f.ctx, f.trainer->state(), source.state().p);
  const SaeState& s = f.trainer->state();
  EXPECT_EQ(values(s.p.W_enc), values(source.state().p.W_enc));
  EXPECT_EQ(values(s.p.W_dec), values(source.state().p.W_dec));
  EXPECT_EQ(values(s.p.b_enc), values(source.state().p.b_enc));
  EXPECT_EQ(values(s.p.b_dec), values(source.state().p.b_dec));
  EXPECT_EQ(values(s.p.threshold), values(source.state().p.threshold));
  for (const Tensor& zero : {s.second_moment.W_enc, s.second_moment.threshold, s.idle, s.fired_total, s.sum_error})
    expect_all_zero(zero);
  EXPECT_EQ(s.W_enc16.data<BF16>()[5].bits, to_bf16(s.p.W_enc.data<float>()[5]).bits);

  TrainerFixture other(recipe(Recipe::Start::kRandom), kBatch, kWidth, kLatents + 1, DType::kF32);
  EXPECT_THROW(start_from(other.ctx, other.trainer->state(), source.state().p), Error);
}

}  // namespace
}  // namespace gsae::test
