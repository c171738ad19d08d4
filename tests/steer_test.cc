#include "kernels/steer.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct Case {
  int64_t n, d, k;
};

struct Operands {
  explicit Operands(const Case& c)
      : x(uniform(c.n * c.d, 1, DType::kF32, -2, 2)),
        decoder(uniform(c.k * c.d, 2, DType::kF32, -1, 1)),
        encoder(uniform(c.k * c.d, 3, DType::kF32, -1, 1)),
        bias(uniform(c.k, 4, DType::kF32, -1, 1)),
        threshold(uniform(c.k, 5, DType::kF32, 0, 2)),
        amount(uniform(c.k, 6, DType::kF32, -9, 9)) {
    for (int64_t i = 0; i < c.k; ++i) gain.push_back(i % 3 == 0 ? 0.0f : i % 3 == 1 ? 1.0f : 0.5f);
  }
  std::vector<float> x, decoder, encoder, bias, threshold, amount, gain;
};

// What is left of x, on ctx.
std::vector<float> run(Context& ctx, const Case& c, const Operands& o) {
  Guarded x(ctx, DType::kF32, {c.n, c.d}, o.x), decoder(ctx, DType::kF32, {c.k, c.d}, o.decoder),
      encoder(ctx, DType::kF32, {c.k, c.d}, o.encoder), bias(ctx, DType::kF32, {c.k}, o.bias),
      threshold(ctx, DType::kF32, {c.k}, o.threshold), amount(ctx, DType::kF32, {c.k}, o.amount),
      gain(ctx, DType::kF32, {c.k}, o.gain);
  steer(ctx, x, {decoder, encoder, bias, threshold, amount, gain});
  return x.read();
}

struct Steer : OnDevice {};
ON_DEVICES(Steer);

// Bounded f32: each sum of m terms is off by sqrt(m) roundings of their magnitudes; what z is off by, the decoder's row
// carries on. Latents so near to their threshold that either is right are left out of the comparison's inputs.
TEST_P(Steer, MatchesReference) {
  for (const Case& c : {Case{1, 1, 1}, {1, 192, 4}, {3, 7, 2}, {5, 300, 9}, {4, 1025, 33}}) {
    Operands o(c);
    std::vector<double> want(o.x.begin(), o.x.end()), terms(want.size());
    int64_t active = 0, silent = 0;
    for (int64_t r = 0; r < c.n; ++r)
      for (int64_t i = 0; i < c.k; ++i) {
        double z = o.bias[i], size = std::fabs(z);
        for (int64_t e = 0; e < c.d; ++e) {
          const double t = double(o.x[r * c.d + e]) * o.encoder[i * c.d + e];
          z += t, size += std::fabs(t);
        }
        ASSERT_GT(std::fabs(z - o.threshold[i]), 1e-5 * size) << "another seed";
        const bool on = z > o.threshold[i];
        if (o.gain[i] != 0) ++(on ? active : silent);
        const double by = o.amount[i] - o.gain[i] * (on ? z : 0);
        const double off = std::fabs(by) + (on ? o.gain[i] * size * std::sqrt(double(c.d)) : 0);
        for (int64_t e = 0; e < c.d; ++e) {
          want[r * c.d + e] += by * o.decoder[i * c.d + e];
          terms[r * c.d + e] += off * std::fabs(o.decoder[i * c.d + e]);
        }
      }
    if (c.n > 1 && c.k > 8) {
      EXPECT_GT(active, 0);
      EXPECT_GT(silent, 0);
    }
    for (size_t e = 0; e < want.size(); ++e)
      terms[e] = terms[e] * std::sqrt(double(c.k)) + std::fabs(o.x[e]) * double(c.k);
    const auto got = run(ctx, c, o);
    expect_close(got, want, 0, 0x1p-23, terms);
    const Threads one(1);
    EXPECT_EQ(run(ctx, c, o), got);
  }
}

// By hand, exact. Two latents along the axes: one at 3 set to 5, one at 1, which is not above its threshold of 1, set
// to 2; a third one's direction added.
TEST_P(Steer, SetsAndAdds) {
  const Case c{2, 4, 3};
  Operands o(c);
  o.x = {3, 1, 10, 20, /**/ -4, 6, 0, 0};
  o.encoder = o.decoder = {1, 0, 0, 0, /**/ 0, 1, 0, 0, /**/ 0, 0, 1, 0};
  o.bias = {0, 0, 0}, o.threshold = {0.5f, 1, 0}, o.amount = {5, 2, -7}, o.gain = {1, 1, 0};
  EXPECT_EQ(run(ctx, c, o), (std::vector<float>{5, 3, 3, 20, /**/ 1, 2, -7, 0}));
}

// The encoder of a latent that is only added is not read.
TEST_P(Steer, AddingReadsNoEncoder) {
  const Case c{2, 40, 2};
  Operands o(c);
  o.gain = {0, 0};
  const auto clean = run(ctx, c, o);
  std::fill(o.encoder.begin(), o.encoder.end(), std::nanf(""));
  o.bias[0] = std::nanf("");
  EXPECT_EQ(run(ctx, c, o), clean);
}

TEST_P(Steer, RefusesWhatDoesNotFit) {
  const auto f32 = [&](std::initializer_list<int64_t> shape) { return Guarded(ctx, DType::kF32, shape); };
  const Guarded x = f32({2, 8}), m = f32({3, 8}), v = f32({3}), wrong = f32({2}), narrow = f32({3, 7});
  EXPECT_THROW(steer(ctx, x, {narrow, narrow, v, v, v, v}), Error);
  EXPECT_THROW(steer(ctx, x, {m, narrow, v, v, v, v}), Error);
  EXPECT_THROW(steer(ctx, x, {m, m, v, v, wrong, v}), Error);
  EXPECT_THROW(steer(ctx, Guarded(ctx, DType::kBF16, {2, 8}), {m, m, v, v, v, v}), Error);
}

}  // namespace
}  // namespace gsae::test
