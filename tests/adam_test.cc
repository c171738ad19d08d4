#include "kernels/adam.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct Adam : OnDevice {};
ON_DEVICES(Adam);
struct AdamUnitRows : OnDevice {};
ON_DEVICES(AdamUnitRows);

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

// The decoder and the thresholds have rates of their own: a factor of the common one, here a power of two, so exact.
TEST_P(Adam, RateScaleMultipliesTheRate) {
  const int64_t n = 50;
  const auto p0 = uniform(n, 1, DType::kF32, -1, 1), g = uniform(n, 2, DType::kF32, -1, 1);
  const auto run = [&](float lr, float rate_scale, bool rows) {
    Guarded p(ctx, DType::kF32, {5, 10}, p0), v(ctx, DType::kF32, {5, 10}, std::vector<float>(n));
    (rows ? adam_unit_rows : adam)(ctx, p, v, Guarded(ctx, DType::kF32, {5, 10}, g), {}, rates(ctx, lr, 0.9f, 1),
                                   {.rate_scale = rate_scale});
    return p.read();
  };
  for (const bool rows : {false, true}) {
    EXPECT_EQ(run(0.1f, 4, rows), run(0.4f, 1, rows));
    EXPECT_NE(run(0.1f, 4, rows), run(0.1f, 1, rows));
  }
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
  EXPECT_THROW(adam_unit_rows(ctx, p, p, p, {}, r, {}), Error);  // a vector has no rows
}

std::vector<float> unit_rows(int64_t rows, int64_t d, uint32_t seed) {
  auto w = uniform(rows * d, seed, DType::kF32, -1, 1);
  for (int64_t i = 0; i < rows; ++i) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double(w[i * d + c]) * w[i * d + c];
    for (int64_t c = 0; c < d; ++c) w[i * d + c] = static_cast<float>(w[i * d + c] / std::sqrt(square));
  }
  return w;
}

// By hand: W = (0.6, 0.8), g = (1, 0). Its component along the row is 0.6, which leaves (0.64, -0.48). With beta2 = 0
// and epsilon = 0 Adam's step is lr times the signs: (0.6 - 0.1, 0.8 + 0.1), of norm sqrt(1.06).
TEST_P(AdamUnitRows, WorkedExample) {
  Guarded W(ctx, DType::kF32, {1, 2}, {0.6f, 0.8f}), v(ctx, DType::kF32, {1, 2}, {0, 0});
  adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {1, 2}, {1, 0}), {}, rates(ctx, 0.1f, 0, 1), {.epsilon = 0});
  expect_close(W.read(), std::vector{0.5 / std::sqrt(1.06), 0.9 / std::sqrt(1.06)}, 8 * kUnit);
  expect_close(v.read(), std::vector{0.64 * 0.64, 0.48 * 0.48}, 16 * kUnit);
}

// v starts at 1/4 or more, so that an error of the projected gradient moves w by at most 2 lr times that error, which
// is (d + 3) u (|g| . |W|) |W_c| + 2 u |g_c|; below, |W_c| <= 1 and |g_c| <= 1. Rounding and the norm add 8 u.
TEST_P(AdamUnitRows, MatchesDoubles) {
  struct Shape {
    int64_t rows, d;
  };
  const float lr = 0.05f, beta2 = 0.9f, scale = 0.8f;
  for (const auto [rows, d] : {Shape{1, 2}, Shape{3, 7}, Shape{16, 64}, Shape{37, 192}, Shape{5, 2304}, Shape{2, 1024},
                               Shape{2, 1028}, Shape{3, 2305}, Shape{2, 6144}, Shape{2, 6148}}) {
    SCOPED_TRACE(d);
    const auto w = unit_rows(rows, d, 1), g = uniform(rows * d, 2, DType::kF32, -1, 1),
               v0 = uniform(rows * d, 3, DType::kF32, 0.25, 1);
    std::vector<double> want(rows * d), moment(rows * d), bound(rows * d), moment_bound(rows * d);
    for (int64_t i = 0; i < rows; ++i) {
      double along = 0, absolute = 0, square = 0;
      for (int64_t c = i * d; c < (i + 1) * d; ++c) along += double(g[c]) * w[c], absolute += std::fabs(g[c] * w[c]);
      for (int64_t c = i * d; c < (i + 1) * d; ++c) {
        const double gc = double(scale) * (g[c] - along * w[c]);
        moment[c] = double(beta2) * v0[c] + (1 - double(beta2)) * gc * gc;
        want[c] = w[c] - double(lr) * gc / (std::sqrt(moment[c] / (1 - double(beta2))) + 1e-8);
        square += want[c] * want[c];
        const double error = (double(d + 3) * absolute + 2) * kUnit;
        bound[c] = 2 * lr * error + 8 * kUnit;
        moment_bound[c] = (1 - beta2) * 2 * (1 + absolute) * error + 8 * kUnit;
      }
      for (int64_t c = i * d; c < (i + 1) * d; ++c) want[c] /= std::sqrt(square);
    }
    Guarded W(ctx, DType::kF32, {rows, d}, w), v(ctx, DType::kF32, {rows, d}, v0), copy(ctx, DType::kBF16, {rows, d});
    adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {rows, d}, g), copy, rates(ctx, lr, beta2, 1, scale), {});
    expect_close(W.read(), want, 0, 1, bound);
    expect_close(v.read(), moment, 0, 1, moment_bound);
    EXPECT_EQ(copy.read(), in_bf16(W.read()));
  }
}

TEST_P(AdamUnitRows, RowsKeepUnitNorm) {
  const int64_t rows = 19, d = 192;
  Guarded W(ctx, DType::kF32, {rows, d}, unit_rows(rows, d, 1)),
      v(ctx, DType::kF32, {rows, d}, std::vector<float>(rows * d));
  for (int t = 1; t <= 30; ++t)
    adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {rows, d}, uniform(rows * d, 9 + t, DType::kF32, -1, 1)), {},
                   rates(ctx, 0.01f, 0.99f, t), {});
  const auto w = W.read();
  for (int64_t i = 0; i < rows; ++i) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double(w[i * d + c]) * w[i * d + c];
    EXPECT_NEAR(std::sqrt(square), 1, 1e-6) << "row " << i;  // what files promise
  }
}

// In one dimension all of the gradient is along the row: nothing is left to move it, or to enter v.
TEST_P(AdamUnitRows, AlongTheRowNothingMoves) {
  Guarded W(ctx, DType::kF32, {2, 1}, {1, -1}), v(ctx, DType::kF32, {2, 1}, {0, 0});
  adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {2, 1}, {5, 7}), {}, rates(ctx, 0.1f, 0.9f, 1), {});
  EXPECT_EQ(W.read(), (std::vector<float>{1, -1}));
  EXPECT_EQ(v.read(), (std::vector<float>{0, 0}));
}

// A pruned latent (a row of zeros without gradient) must not become NaN, nor a NaN anything else.
TEST_P(AdamUnitRows, ZeroRowsAndNan) {
  const int64_t d = 20;
  auto w = unit_rows(3, d, 1), g = uniform(3 * d, 2, DType::kF32, -1, 1);
  for (int64_t c = 0; c < d; ++c) w[d + c] = g[d + c] = 0;
  g[2 * d + 3] = std::nanf("");
  Guarded W(ctx, DType::kF32, {3, d}, w), v(ctx, DType::kF32, {3, d}, std::vector<float>(3 * d));
  adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {3, d}, g), {}, rates(ctx, 0.1f, 0.9f, 1), {.epsilon = 1e-8f});
  const auto got = W.read();
  for (int64_t c = 0; c < d; ++c) {
    EXPECT_TRUE(std::isfinite(got[c]));
    EXPECT_EQ(got[d + c], 0.0f);
    EXPECT_TRUE(std::isnan(got[2 * d + c]));  // through the row's norm
  }
}

TEST_P(AdamUnitRows, SameBitsEveryTime) {
  const int64_t rows = 53, d = 70;
  std::vector<float> first;
  for (const int count : {1, 2, 3}) {
    const Threads threads(count);
    Guarded W(ctx, DType::kF32, {rows, d}, unit_rows(rows, d, 1)),
        v(ctx, DType::kF32, {rows, d}, uniform(rows * d, 2, DType::kF32, 0, 1));
    adam_unit_rows(ctx, W, v, Guarded(ctx, DType::kF32, {rows, d}, uniform(rows * d, 3, DType::kF32, -1, 1)), {},
                   rates(ctx, 0.1f, 0.9f, 1), {});
    if (count == 1) first = W.read();
    else EXPECT_EQ(W.read(), first) << count << " threads";
  }
}

}  // namespace
}  // namespace gsae::test
