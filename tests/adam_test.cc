#include "kernels/adam.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct Adam : OnDevice {};
ON_DEVICES(Adam);

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

Guarded rates(Context& ctx, float lr, float beta2, int64_t t, float grad_scale = 1) {
  const double unbias = 1 / (1 - std::pow(double(beta2), double(t)));
  return Guarded(ctx, DType::kF32, {kRates}, {lr, beta2, static_cast<float>(unbias), grad_scale});
}

std::vector<float> in_bf16(std::vector<float> v) {
  for (float& x : v) x = to_float(to_bf16(x));
  return v;
}

// By hand, beta2 = 3/4, epsilon = 1. Step 1: v = 4/4 = 1, unbias 4: p -= 0.3 * 2 / (sqrt(4) + 1) = 0.2.
// Step 2, g = 0: v = 3/4, and nothing moves.
TEST_P(Adam, WorkedExample) {
  Guarded p(ctx, DType::kF32, {1}, {1}), v(ctx, DType::kF32, {1}, {0});
  adam(ctx, p, v, Guarded(ctx, DType::kF32, {1}, {2}), {}, rates(ctx, 0.3f, 0.75f, 1), {.epsilon = 1});
  expect_close(p.read(), std::vector{0.8}, 4 * kUnit);
  EXPECT_EQ(v.read()[0], 1.0f);
  adam(ctx, p, v, Guarded(ctx, DType::kF32, {1}, {0}), {}, rates(ctx, 0.3f, 0.75f, 2), {.epsilon = 1});
  expect_close(p.read(), std::vector{0.8}, 4 * kUnit);
  EXPECT_EQ(v.read()[0], 0.75f);
}

// Ten steps against the same in doubles. A step's update has a relative error below 10 u (v: 3 roundings and those of
// the steps before, halved by the root; the root, the sum, the product, the quotient), |update| <= lr / sqrt(1 - beta2)
// after the correction; and p rounds once. The second moment only sums positive terms: 4 u a step.
TEST_P(Adam, MatchesDoubles) {
  const int64_t n = 40003;  // several ranges, the last one ragged
  const float lr = 0.01f, beta2 = 0.99f, scale = 0.7f, epsilon = 1e-8f;
  const int steps = 10;
  auto p0 = uniform(n, 1, DType::kF32, -1, 1);
  std::vector<double> p(p0.begin(), p0.end()), v(n);
  Guarded ps(ctx, DType::kF32, {n}, p0), vs(ctx, DType::kF32, {n}, std::vector<float>(n)), copy(ctx, DType::kBF16, {n});
  for (int t = 1; t <= steps; ++t) {
    auto g = uniform(n, 10 + t, DType::kF32, -1, 1);
    for (int64_t i = 0; i < n; ++i) {
      if (i % 5 == 0) g[i] = 0;        // a latent that never fires: p stays
      if (i % 7 == 0) g[i] *= 1e-12f;  // epsilon matters
      const double gi = double(scale) * g[i];
      v[i] = double(beta2) * v[i] + (1 - double(beta2)) * gi * gi;
      p[i] -= double(lr) * gi / (std::sqrt(v[i] / (1 - std::pow(double(beta2), t))) + double(epsilon));
    }
    adam(ctx, ps, vs, Guarded(ctx, DType::kF32, {n}, g), copy, rates(ctx, lr, beta2, t, scale), {.epsilon = epsilon});
  }
  const double largest_update = lr / std::sqrt(1 - beta2);
  expect_close(ps.read(), p, 0, steps * (10 * largest_update + 2) * kUnit);
  expect_close(vs.read(), v, 4 * steps * kUnit);
  EXPECT_EQ(copy.read(), in_bf16(ps.read()));
  const auto moved = ps.read();
  for (int64_t i = 0; i < n; i += 5) ASSERT_EQ(moved[i], p0[i]) << i;
}

TEST_P(Adam, ClampsFromBelow) {
  Guarded p(ctx, DType::kF32, {3}, {0.05f, 0.5f, 0}), v(ctx, DType::kF32, {3}, {0, 0, 0}), copy(ctx, DType::kBF16, {3});
  adam(ctx, p, v, Guarded(ctx, DType::kF32, {3}, {1, 1, 0}), copy, rates(ctx, 0.1f, 0.9f, 1), {.lowest = 0});
  expect_close(p.read(), std::vector<double>{0, 0.4, 0}, 8 * kUnit);
  EXPECT_EQ(p.read()[0], 0.0f);
  EXPECT_EQ(copy.read(), in_bf16(p.read()));
}

// Some parameters have rates of their own: a factor of the common one, here a power of two, so exact.
TEST_P(Adam, RateScaleMultipliesTheRate) {
  const int64_t n = 50;
  const auto p0 = uniform(n, 1, DType::kF32, -1, 1), g = uniform(n, 2, DType::kF32, -1, 1);
  const auto run = [&](float lr, float rate_scale) {
    Guarded p(ctx, DType::kF32, {n}, p0), v(ctx, DType::kF32, {n}, std::vector<float>(n));
    adam(ctx, p, v, Guarded(ctx, DType::kF32, {n}, g), {}, rates(ctx, lr, 0.9f, 1), {.rate_scale = rate_scale});
    return p.read();
  };
  EXPECT_EQ(run(0.1f, 4), run(0.4f, 1));
  EXPECT_NE(run(0.1f, 4), run(0.1f, 1));
}

// A NaN or an infinite gradient must not be clamped away, or training would go on without anyone knowing.
TEST_P(Adam, NanStays) {
  const int64_t n = 67;
  for (const float lowest : {AdamOptions{}.lowest, 0.0f})
    for (const float bad : {std::nanf(""), HUGE_VALF}) {
      std::vector<float> g(n, 0.5f);
      g[3] = g[66] = bad;  // in a vector and in the rest
      Guarded p(ctx, DType::kF32, {n}, std::vector<float>(n, 1.0f)), v(ctx, DType::kF32, {n}, std::vector<float>(n)),
          copy(ctx, DType::kBF16, {n});
      adam(ctx, p, v, Guarded(ctx, DType::kF32, {n}, g), copy, rates(ctx, 0.1f, 0.9f, 1), {.lowest = lowest});
      const auto ps = p.read(), cs = copy.read();
      for (int64_t i = 0; i < n; ++i) {
        EXPECT_EQ(std::isnan(ps[i]), i == 3 || i == 66) << i;
        EXPECT_EQ(std::isnan(cs[i]), i == 3 || i == 66) << i;
      }
    }
}

TEST_P(Adam, RefusesWrongOperands) {
  Guarded p(ctx, DType::kF32, {4}), other(ctx, DType::kF32, {5}), p16(ctx, DType::kBF16, {4});
  Guarded r(ctx, DType::kF32, {kRates}, {0, 0.9f, 1, 1}), few(ctx, DType::kF32, {2});
  EXPECT_NO_THROW(adam(ctx, p, p, p, p16, r, {}));
  EXPECT_THROW(adam(ctx, p, other, p, {}, r, {}), Error);
  EXPECT_THROW(adam(ctx, p, p, other, {}, r, {}), Error);
  EXPECT_THROW(adam(ctx, p16, p, p, {}, r, {}), Error);
  EXPECT_THROW(adam(ctx, p, p, p16, {}, r, {}), Error);
  EXPECT_THROW(adam(ctx, p, p, p, p, r, {}), Error);
  EXPECT_THROW(adam(ctx, p, p, p, other, r, {}), Error);
  EXPECT_THROW(adam(ctx, p, p, p, {}, few, {}), Error);
}

}  // namespace
}  // namespace gsae::test
