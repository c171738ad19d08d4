#include "kernels/sparsity.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct SparsityPenalty : OnDevice {};
ON_DEVICES(SparsityPenalty);
struct ControlSparsity : OnDevice {};
ON_DEVICES(ControlSparsity);

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

Guarded controls(Context& ctx, float lambda, float scale, float steady, float target, float rise = 0) {
  std::vector<float> values(kControls);
  values[kLambda] = lambda, values[kLambdaScale] = scale, values[kLambdaSteady] = steady, values[kTargetL0] = target;
  values[kTargetRise] = rise, values[kThresholdFactor] = 1;
  return Guarded(ctx, DType::kF32, {kControls}, values);
}

// By hand: lambda 1/2, a batch of 8.
TEST_P(SparsityPenalty, Linear) {
  Guarded dl0(ctx, DType::kF32, {3}), penalty(ctx, DType::kF32, {3}), l0(ctx, DType::kF32, {3}, {0, 4, 10});
  sparsity_penalty(ctx, dl0, penalty, l0, controls(ctx, 0.5f, 9, 9, 9), false, 8);
  EXPECT_EQ(penalty.read(), (std::vector<float>{0, 2, 5}));
  EXPECT_EQ(dl0.read(), (std::vector<float>{0.0625, 0.0625, 0.0625}));
}

// By hand: lambda 1/2, target 4: penalty = 1/4 (l0 - 4)^2, its derivative (l0 - 4) / 2, over a batch of 8.
TEST_P(SparsityPenalty, Quadratic) {
  Guarded dl0(ctx, DType::kF32, {3}), penalty(ctx, DType::kF32, {3}), l0(ctx, DType::kF32, {3}, {0, 4, 10});
  sparsity_penalty(ctx, dl0, penalty, l0, controls(ctx, 0.5f, 9, 9, 4), true, 8);
  EXPECT_EQ(penalty.read(), (std::vector<float>{4, 0, 9}));
  EXPECT_EQ(dl0.read(), (std::vector<float>{-0.25, 0, 0.375}));
}

// The derivative is that of the batch's mean penalty: central differences of the value itself.
TEST_P(SparsityPenalty, DerivativeOfTheValue) {
  for (const bool quadratic : {false, true})
    for (const float count : {0.0f, 7.0f, 33.0f, 200.0f}) {
      Guarded dl0(ctx, DType::kF32, {3}), penalty(ctx, DType::kF32, {3}),
          l0(ctx, DType::kF32, {3}, {count - 1, count, count + 1});
      sparsity_penalty(ctx, dl0, penalty, l0, controls(ctx, 0.25f, 9, 9, 32), quadratic, 16);
      const auto p = penalty.read();
      EXPECT_EQ(dl0.read()[1], (p[2] - p[0]) / 2 / 16) << quadratic << " " << count;  // powers of two: exact
    }
}

TEST_P(SparsityPenalty, RefusesWrongShapes) {
  Guarded rows(ctx, DType::kF32, {3}), other(ctx, DType::kF32, {2}), c(ctx, DType::kF32, {kControls});
  EXPECT_THROW(sparsity_penalty(ctx, other, rows, rows, c, false, 3), Error);
  EXPECT_THROW(sparsity_penalty(ctx, rows, other, rows, c, false, 3), Error);
  EXPECT_THROW(sparsity_penalty(ctx, rows, rows, rows, other, false, 3), Error);
  EXPECT_THROW(control_sparsity(ctx, other, rows, {}, {}), Error);
  EXPECT_THROW(control_sparsity(ctx, c, rows, other, {.integral = 1}), Error);
}

TEST_P(ControlSparsity, WithoutGainsLambdaIsTheWarmedUpOne) {
  Guarded c = controls(ctx, 77, 0.25f, 8, 32), l0(ctx, DType::kF32, {2}, {1e6f, 1e6f});
  control_sparsity(ctx, c, l0, {}, {});
  EXPECT_EQ(c.read(), (std::vector<float>{2, 8, 0.25f, 32, 0, 1}));
}

// By hand: mean L0 20 against 10: e = ln 2. steady *= 2^0.5, lambda = scale * steady * 2^2, the factor 2^0.25. With a
// mean error of 10, a unit is 1, and the bounds are far.
TEST_P(ControlSparsity, WhatItMoves) {
  Guarded c = controls(ctx, 0, 0.5f, 3, 10), l0(ctx, DType::kF32, {4}, {5, 35, 0, 40}),
          error(ctx, DType::kF32, {4}, {10, 30, 0, 0});
  control_sparsity(ctx, c, l0, error, {.integral = 0.5f, .proportional = 2, .threshold = 0.25f});
  const double steady = 3 * std::sqrt(2.0);
  expect_close(c.read(), std::vector<double>{0.5 * steady * 4, steady, 0.5, 10, 0, std::sqrt(std::sqrt(2.0))},
               8 * kUnit);
}

// By hand: twice the target, and the next one is twice this one: what is to be expected is on target, the lambda that
// holds it half of that which holds this. steady *= 2^0.5 / 2.
TEST_P(ControlSparsity, AnticipatesARise) {
  const auto rise = static_cast<float>(std::log(2.0));
  Guarded c = controls(ctx, 0, 0.5f, 3, 10, rise), l0(ctx, DType::kF32, {2}, {15, 25}),
          error(ctx, DType::kF32, {2}, {10, 10});
  control_sparsity(ctx, c, l0, error, {.integral = 0.5f, .proportional = 2, .threshold = 0.25f});
  const double steady = 3 * std::sqrt(2.0) / 2;
  expect_close(c.read(), std::vector<double>{0.5 * steady, steady, 0.5, 10, rise, 1}, 8 * kUnit);
}

// Too sparse lowers lambda and the thresholds, too dense raises them, on target leaves them; what it has found stays
// when L0 gets there.
TEST_P(ControlSparsity, Directions) {
  const ControllerGains gains{.integral = 0.01f, .proportional = 2, .threshold = 0.3f};
  const auto sign = [](float value, float from) { return (value > from) - (value < from); };
  Guarded error(ctx, DType::kF32, {1}, {10});
  for (const auto& [count, want] : {std::pair{5.0f, -1}, {10.0f, 0}, {11.0f, 1}}) {
    Guarded c = controls(ctx, 0, 1, 3, 10), l0(ctx, DType::kF32, {1}, {count});
    control_sparsity(ctx, c, l0, error, gains);
    const auto after = c.read();
    EXPECT_EQ(sign(after[kLambda], 3), want) << count;
    EXPECT_EQ(sign(after[kLambdaSteady], 3), want) << count;
    EXPECT_EQ(sign(after[kThresholdFactor], 1), want) << count;
    Guarded arrived(ctx, DType::kF32, {1}, {10});
    control_sparsity(ctx, c, arrived, error, gains);
    EXPECT_EQ(c.read()[kLambda], after[kLambdaSteady]);
    EXPECT_EQ(c.read()[kThresholdFactor], 1);
  }
}

// However far off, a step changes the logarithms by no more than the gains: nothing firing at all included.
TEST_P(ControlSparsity, ErrorIsClamped) {
  for (const auto& [count, e] : {std::pair{0.0f, -1.0}, {1e9f, 1.0}}) {
    Guarded c = controls(ctx, 0, 1, 3, 10), l0(ctx, DType::kF32, {1}, {count}), error(ctx, DType::kF32, {1}, {10});
    control_sparsity(ctx, c, l0, error, {.integral = 0.5f, .proportional = 2, .threshold = 1});
    const double steady = 3 * std::exp(0.5 * e);
    expect_close(c.read(), std::vector<double>{steady * std::exp(2 * e), steady, 1, 10, 0, std::exp(e)}, 8 * kUnit);
  }
}

// By hand: a mean of nothing counts as 1/1000, against 1/500 here: e = -ln 2.
TEST_P(ControlSparsity, NothingFires) {
  Guarded c = controls(ctx, 0, 1, 3, 2e-3f), l0(ctx, DType::kF32, {3}, {0, 0, 0}),
          error(ctx, DType::kF32, {3}, {2e-3f, 2e-3f, 2e-3f});
  control_sparsity(ctx, c, l0, error, {.integral = 1, .proportional = 1, .threshold = 1});
  expect_close(c.read(), std::vector<double>{0.75, 1.5, 1, 2e-3f, 0, 0.5}, 8 * kUnit);
}

// By hand, on target, mean error 5 of an L0 of 10: a unit is 1/2. It begins at three tenths of it, and stays within its
// bounds of it whatever it was.
TEST_P(ControlSparsity, BeginsAndStaysWithinItsBounds) {
  Guarded l0(ctx, DType::kF32, {2}, {5, 15}), error(ctx, DType::kF32, {2}, {2, 8});
  for (const auto& [from, to] : {std::pair{0.0f, 0.15}, {1e-7f, 0.01}, {0.02f, 0.02}, {24.0f, 24.0}, {26.0f, 25.0}}) {
    Guarded c = controls(ctx, 0, 1, from, 10);
    control_sparsity(ctx, c, l0, error, {.integral = 1, .proportional = 1, .threshold = 1});
    expect_close(c.read(), std::vector<double>{to, to, 1, 10, 0, 1}, 2 * kUnit);
  }
}

// A step that broke does not look like a good one.
TEST_P(ControlSparsity, NaNStays) {
  for (const bool of_error : {false, true}) {
    Guarded c = controls(ctx, 0, 1, 3, 10), l0(ctx, DType::kF32, {1}, {of_error ? 10 : NAN}),
            error(ctx, DType::kF32, {1}, {of_error ? NAN : 10});
    control_sparsity(ctx, c, l0, error, {.integral = 0.5f, .proportional = 2, .threshold = 1});
    EXPECT_TRUE(std::isnan(c.read()[of_error ? kLambda : kThresholdFactor])) << of_error;
  }
}

// A batch's worth: more rows than a block has threads. By hand: a mean of 20 against 10, e = ln 2; a mean error of 3,
// so that lambda begins at 0.09.
TEST_P(ControlSparsity, ManyRows) {
  std::vector<float> counts(3001, 20), errors(3001, 3);
  counts[0] = 0, counts[3000] = 40;
  errors[1500] = 1, errors[3000] = 5;
  Guarded c = controls(ctx, 0, 1, 0, 10), l0(ctx, DType::kF32, {3001}, counts), error(ctx, DType::kF32, {3001}, errors);
  control_sparsity(ctx, c, l0, error, {.integral = 1, .proportional = 1, .threshold = 1});
  expect_close(c.read(), std::vector<double>{0.36, 0.18, 1, 10, 0, 2}, 8 * kUnit);
}

struct MoveThresholds : OnDevice {};
ON_DEVICES(MoveThresholds);

TEST_P(MoveThresholds, AllByTheFactor) {
  const auto thetas = integers(777, 3, 0, 100);
  std::vector<float> want;
  for (const float t : thetas) want.push_back(t * 1.25f);
  Guarded theta(ctx, DType::kF32, {777}, thetas), c(ctx, DType::kF32, {kControls}, {9, 9, 9, 9, 9, 1.25f});
  move_thresholds(ctx, theta, c);
  EXPECT_EQ(theta.read(), want);
  EXPECT_THROW(move_thresholds(ctx, theta, theta), Error);
}

TEST_P(SparsityPenalty, ManyRows) {
  const int64_t n = 1025;
  const auto counts = integers(n, 1, 0, 500);
  std::vector<float> want(n), slope(n);
  for (int64_t r = 0; r < n; ++r)
    want[r] = (counts[r] - 64) * (counts[r] - 64) / 64, slope[r] = (counts[r] - 64) / 1024;
  Guarded dl0(ctx, DType::kF32, {n}), penalty(ctx, DType::kF32, {n});
  sparsity_penalty(ctx, dl0, penalty, Guarded(ctx, DType::kF32, {n}, counts), controls(ctx, 0.5f, 9, 9, 64), true, 32);
  EXPECT_EQ(penalty.read(), want);
  EXPECT_EQ(dl0.read(), slope);
}

}  // namespace
}  // namespace gsae::test
