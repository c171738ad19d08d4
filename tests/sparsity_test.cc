#include "kernels/sparsity.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct SparsityPenalty : OnDevice {};
ON_DEVICES(SparsityPenalty);
struct ControlSparsity : OnDevice {};
ON_DEVICES(ControlSparsity);

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

Guarded controls(Context& ctx, float lambda, float scale, float steady, float target) {
  return Guarded(ctx, DType::kF32, {kControls}, {lambda, scale, steady, target});
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
  EXPECT_THROW(control_sparsity(ctx, other, rows, {}), Error);
}

TEST_P(ControlSparsity, WithoutGainsLambdaIsTheWarmedUpOne) {
  Guarded c = controls(ctx, 77, 0.25f, 8, 32), l0(ctx, DType::kF32, {2}, {1e6f, 1e6f});
  control_sparsity(ctx, c, l0, {});
  EXPECT_EQ(c.read(), (std::vector<float>{2, 0.25f, 8, 32}));
}

// By hand: mean L0 20 against 10: e = ln 2. steady *= 2^0.5, lambda = scale * steady * 2^2.
TEST_P(ControlSparsity, ProportionalAndIntegral) {
  Guarded c = controls(ctx, 0, 0.5f, 3, 10), l0(ctx, DType::kF32, {4}, {5, 35, 0, 40});
  control_sparsity(ctx, c, l0, {.integral = 0.5f, .proportional = 2});
  const double steady = 3 * std::sqrt(2.0);
  expect_close(c.read(), std::vector<double>{0.5 * steady * 4, 0.5, steady, 10}, 8 * kUnit);
}

// Too sparse lowers lambda, too dense raises it, on target leaves it; what it has found stays when L0 gets there.
TEST_P(ControlSparsity, Directions) {
  const ControllerGains gains{.integral = 0.01f, .proportional = 2};
  for (const auto& [count, sign] : {std::pair{5.0f, -1}, {10.0f, 0}, {11.0f, 1}}) {
    Guarded c = controls(ctx, 0, 1, 3, 10), l0(ctx, DType::kF32, {1}, {count});
    control_sparsity(ctx, c, l0, gains);
    const auto after = c.read();
    EXPECT_EQ((after[kLambda] > 3) - (after[kLambda] < 3), sign) << count;
    EXPECT_EQ((after[kLambdaSteady] > 3) - (after[kLambdaSteady] < 3), sign) << count;
    Guarded arrived(ctx, DType::kF32, {1}, {10});
    control_sparsity(ctx, c, arrived, gains);
    EXPECT_EQ(c.read()[kLambda], after[kLambdaSteady]);
  }
}

// However far off, a step changes the logarithm by no more than the gains: nothing firing at all included.
TEST_P(ControlSparsity, ErrorIsClamped) {
  for (const auto& [count, e] : {std::pair{0.0f, -1.0}, {1e9f, 1.0}}) {
    Guarded c = controls(ctx, 0, 1, 3, 10), l0(ctx, DType::kF32, {1}, {count});
    control_sparsity(ctx, c, l0, {.integral = 0.5f, .proportional = 2});
    const double steady = 3 * std::exp(0.5 * e);
    expect_close(c.read(), std::vector<double>{steady * std::exp(2 * e), 1, steady, 10}, 8 * kUnit);
  }
}

}  // namespace
}  // namespace gsae::test
