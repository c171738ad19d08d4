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

  Started(const Context& on, const Recipe& r, DType precision = DType::kF32, int64_t tile = kBatch)
      : TrainerFixture(on, r, tile, kWidth, kLatents, precision), x(Dictionary(kWidth, 64, 4, 9).rows(0, kBatch)) {
    feed(x);
    start_training(ctx, trainer->state(), trainer->workspace(), r);
  }
  const SaeState& state() { return trainer->state(); }
  HostParameters parameters() { return {ctx, trainer->state()}; }
};

struct Start : OnDevice {};
ON_DEVICES(Start);

void expect_unit_rows(const std::vector<float>& W_dec) {
  for (int64_t i = 0; i < kLatents; ++i) {
    double square = 0;
    for (int64_t c = 0; c < kWidth; ++c) square += std::pow(double(W_dec[i * kWidth + c]), 2);
    EXPECT_NEAR(std::sqrt(square), 1, 1e-6) << "row " << i;
  }
}

void expect_all_zero(Context& ctx, Tensor t) {
  // whatever the dtype: as many elements of four bytes
  t = Tensor{.ptr = t.ptr, .dtype = DType::kI32, .device = t.device, .rank = 1, .dim = {int64_t(t.bytes() / 4)}};
  const auto words = download<int32_t>(ctx, t);
  EXPECT_EQ(words, std::vector<int32_t>(words.size()));
}

TEST_P(Start, Random) {
  const HostParameters p = Started(ctx, recipe(Recipe::Start::kRandom)).parameters();
  const auto &W_dec = p.W_dec, &W_enc = p.W_enc;
  expect_unit_rows(W_dec);
  for (int64_t i = 0; i < kLatents; ++i)
    for (int64_t c = 0; c < kWidth; ++c) ASSERT_EQ(W_enc[c * kLatents + i], W_dec[i * kWidth + c]);
  EXPECT_EQ(p.threshold, std::vector<float>(kLatents, 0.001f));
  EXPECT_EQ(p.b_enc, std::vector<float>(kLatents));
  EXPECT_EQ(p.b_dec, std::vector<float>(kWidth));

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

TEST_P(Start, CountersAndMomentsAreZero) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    Started s(ctx, recipe(start));
    const SaeState& t = s.state();
    const LatentTensors& v = t.latents.v;
    for (const Tensor& zero : {v.W_enc, v.W_dec, v.b_enc, v.threshold, t.b_dec_moment, t.latents.stamp, t.fired, t.idle,
                               t.fired_total, t.sum_error, t.sum_l0, t.sum_penalty, t.sum_x, t.sum_x2, t.p().b_enc})
      expect_all_zero(ctx, zero);
  }
}

TEST_P(Start, TheSeedReproduces) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    const auto parameters = [&](uint64_t seed) { return Started(ctx, recipe(start, seed)).parameters(); };
    const HostParameters first = parameters(1);
    EXPECT_TRUE(parameters(1) == first);
    EXPECT_NE(parameters(2).W_dec, first.W_dec);
    const Threads one(1);
    EXPECT_TRUE(parameters(1) == first);
  }
}

TEST_P(Start, FromData) {
  Started s(ctx, recipe(Recipe::Start::kData));
  const HostParameters p = s.parameters();
  const auto &W_dec = p.W_dec, &W_enc = p.W_enc, &theta = p.threshold, &b_dec = p.b_dec;
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
TEST_P(Start, FromDataByTile) {
  const int64_t tile = 100;
  Started s(ctx, recipe(Recipe::Start::kData), DType::kF32, tile);
  const HostParameters p = s.parameters();
  const std::vector<float> first(s.x.begin(), s.x.begin() + tile * kWidth);
  EXPECT_NEAR(mean(Reference(first, p).l0), 6, 2.0 / tile);
  double sum = 0;
  for (int64_t r = 0; r < kBatch; ++r) sum += s.x[r * kWidth];
  EXPECT_NEAR(p.b_dec[0], sum / kBatch, 1e-7);
}

// More latents asked for than there are, or fewer than one in the whole tile: clamped, and finite.
TEST_P(Start, ExtremeStartL0) {
  for (const double l0 : {0.0, 1e-6, double(kLatents), 1e9}) {
    Recipe r = recipe(Recipe::Start::kData);
    r.start_l0 = l0;
    const HostParameters p = Started(ctx, r).parameters();
    for (const auto& v : {p.W_enc, p.threshold})
      for (const float value : v) ASSERT_TRUE(std::isfinite(value)) << l0;
    EXPECT_GT(p.threshold[0], 0) << l0;
  }
}

// Nothing varies: no quantile, no least squares; still a start that training can leave.
TEST_P(Start, ConstantData) {
  Recipe r = recipe(Recipe::Start::kData);
  TrainerFixture f(ctx, r, kBatch, kWidth, kLatents, DType::kF32);
  f.feed(std::vector<float>(kBatch * kWidth, 0.25f));
  start_training(f.ctx, f.trainer->state(), f.trainer->workspace(), r);
  for (const Tensor& t : {f.trainer->state().p().W_enc, f.trainer->state().p().threshold})
    for (const float v : values(ctx, t)) ASSERT_TRUE(std::isfinite(v));
}

TEST_P(Start, Bf16CopiesAreInStep) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    Started s(ctx, recipe(start), DType::kBF16);
    for (const auto& [narrow, wide] : {std::pair{s.state().latents.W_enc16, s.state().p().W_enc},
                                       {s.state().latents.W_dec16, s.state().p().W_dec}}) {
      const auto copies = download<BF16>(ctx, narrow);
      const auto weights = values(ctx, wide);
      for (size_t i = 0; i < weights.size(); ++i) ASSERT_EQ(copies[i].bits, to_bf16(weights[i]).bits) << i;
    }
  }
}

// From the host's memory, as the command reads them, which may go at once.
TEST_P(Start, FromGivenParameters) {
  const HostParameters want = Started(ctx, recipe(Recipe::Start::kData)).parameters();
  HostParameters given = want;
  SaeParameters p;
  p.W_enc = view(given.W_enc.data(), {kWidth, kLatents}), p.W_dec = view(given.W_dec.data(), {kLatents, kWidth});
  p.b_enc = view(given.b_enc.data(), {kLatents}), p.b_dec = view(given.b_dec.data(), {kWidth});
  p.threshold = view(given.threshold.data(), {kLatents});

  const Recipe r = recipe(Recipe::Start::kRandom);
  TrainerFixture f(ctx, r, kBatch, kWidth, kLatents, DType::kBF16);
  start_from(f.ctx, f.trainer->state(), p);
  for (std::vector<float>* gone : {&given.W_enc, &given.W_dec, &given.b_dec})
    std::fill(gone->begin(), gone->end(), 9.f);
  const SaeState& s = f.trainer->state();
  EXPECT_TRUE(HostParameters(ctx, s) == want);
  for (const Tensor& zero : {s.latents.v.W_enc, s.latents.v.threshold, s.latents.stamp, s.idle, s.sum_error})
    expect_all_zero(ctx, zero);
  EXPECT_EQ(download<BF16>(ctx, s.latents.W_enc16)[5].bits, to_bf16(values(ctx, s.p().W_enc)[5]).bits);

  TrainerFixture other(ctx, r, kBatch, kWidth, kLatents + 1, DType::kF32);
  EXPECT_THROW(start_from(other.ctx, other.trainer->state(), p), Error);
}

// Latents in tiles, as a wide SAE has them: theta is the quantile of some latents' z, which are as random as the
// others', and the factor that of all.
TEST_P(Start, FromDataByTileOfLatents) {
  const Recipe r = recipe(Recipe::Start::kData);
  Started whole(ctx, r);
  StepSizes sizes = tiles_of(kBatch, kBatch, kWidth, kLatents);
  sizes.latents = 64;
  TrainerFixture f(ctx, r, sizes, kWidth, kLatents, DType::kF32, StepKind::kDense);
  f.feed(whole.x);
  start_training(f.ctx, f.trainer->state(), f.trainer->workspace(), r);
  const HostParameters got(ctx, f.trainer->state()), all = whole.parameters();
  EXPECT_EQ(got.W_dec, all.W_dec);
  const Reference now(whole.x, got);
  EXPECT_NEAR(mean(now.l0), 6, 2);  // 64 of 203 correlated latents: a sample
  double dot = 0, explained = 0;
  for (size_t i = 0; i < whole.x.size(); ++i) {
    const double hat = now.x_hat[i] - got.b_dec[i % kWidth];
    dot += hat * (whole.x[i] - now.x_hat[i]), explained += hat * hat;
  }
  // theta is one of the z: whether that one is active is up to rounding, and it weighs as much as theta and an error
  EXPECT_NEAR(dot, 0, 1e-4 * explained + got.threshold[0]);
}

// The host prepares it but for one product and one sum, which round otherwise: theta is a quantile of z, and the factor
// a mean, so both are as near as z is, sums of kWidth products.
TEST_P(Start, IsThatOfTheCpu) {
  for (const auto start : {Recipe::Start::kRandom, Recipe::Start::kData}) {
    const HostParameters here = Started(ctx, recipe(start)).parameters(),
                         cpu = Started(Context(Device::kCpu), recipe(start)).parameters();
    EXPECT_EQ(here.W_dec, cpu.W_dec);
    EXPECT_EQ(here.b_dec, cpu.b_dec);
    expect_close(here.W_enc, cpu.W_enc, start == Recipe::Start::kRandom ? 0 : 1e-5);
    expect_close(here.threshold, cpu.threshold, start == Recipe::Start::kRandom ? 0 : 1e-5);
  }
}

}  // namespace
}  // namespace gsae::test
