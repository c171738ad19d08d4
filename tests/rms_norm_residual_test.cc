#include "kernels/rms_norm_residual.h"

#include "kernels/add.h"
#include "kernels/rms_norm.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr float kEps = 1e-6f;

struct RmsNormResidual : OnDevice {};
ON_DEVICES(RmsNormResidual);

// Exact: the contract promises the bits of the composition, so that a pass with a hook between the
// two norms and one without agree.
TEST_P(RmsNormResidual, IsTheComposition) {
  struct Shape {
    int64_t n, d;
  };
  // one access, a part of a thread's share, all of it, one access more; widths that no access fits
  for (const auto [n, d] : {Shape{1, 1}, Shape{5, 255}, Shape{35, 257}, Shape{33, 192}, Shape{2, 4}, Shape{2, 768},
                            Shape{2, 772}, Shape{3, 2304}, Shape{2, 2308}, Shape{2, 4608}, Shape{2, 4612}})
    for (const DType h_type : {DType::kF32, DType::kBF16})
      for (const DType post_type : {DType::kF32, DType::kBF16}) {
        const DType next_type = n % 2 ? DType::kBF16 : DType::kF32;
        const auto x0 = uniform(n * d, 1, DType::kF32, -40, 40), y0 = uniform(n * d, 2, DType::kF32, -3, 3);
        Guarded post(ctx, post_type, {d}, uniform(d, 3, post_type, -1, 1));
        Guarded next(ctx, next_type, {d}, uniform(d, 4, next_type, -1, 1));
        Guarded x(ctx, DType::kF32, {n, d}, x0), y(ctx, DType::kF32, {n, d}, y0), h(ctx, h_type, {n, d});
        Guarded want_x(ctx, DType::kF32, {n, d}, x0), normed(ctx, DType::kF32, {n, d}), want_h(ctx, h_type, {n, d});
        rms_norm(ctx, normed, y, post, kEps);
        add(ctx, want_x, normed);
        rms_norm(ctx, want_h, want_x, next, kEps);

        rms_norm_residual(ctx, h, x, y, post, next, kEps);
        EXPECT_EQ(x.read(), want_x.read());
        EXPECT_EQ(h.read(), want_h.read());
        EXPECT_EQ(y.read(), y0);

        Guarded alone(ctx, DType::kF32, {n, d}, x0);  // the last layer: no norm follows
        rms_norm_residual(ctx, {}, alone, y, post, {}, kEps);
        EXPECT_EQ(alone.read(), want_x.read());
      }
}

// A NaN takes its own row, h as well as x, and no other.
TEST_P(RmsNormResidual, NanTakesItsRow) {
  for (const int64_t d : {64, 67, 4612})
    for (const bool in_x : {false, true}) {
      auto x0 = uniform(3 * d, 1, DType::kF32, -4, 4), y0 = uniform(3 * d, 2, DType::kF32, -4, 4);
      (in_x ? x0 : y0)[d + d / 2] = std::nanf("");
      Guarded x(ctx, DType::kF32, {3, d}, x0), y(ctx, DType::kF32, {3, d}, y0), h(ctx, DType::kF32, {3, d});
      Guarded w(ctx, DType::kF32, {d}, std::vector<float>(d));
      rms_norm_residual(ctx, h, x, y, w, w, kEps);
      const auto got = h.read();
      for (int64_t i = 0; i < 3 * d; ++i) ASSERT_EQ(std::isnan(got[i]), i / d == 1) << i << " of " << d;
    }
}

TEST_P(RmsNormResidual, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 8}), y(ctx, DType::kF32, {2, 8}), h(ctx, DType::kBF16, {2, 8});
  Guarded w(ctx, DType::kF32, {8}), small(ctx, DType::kF32, {1, 8});
  EXPECT_THROW(rms_norm_residual(ctx, h, x, small, w, w, kEps), Error);
  EXPECT_THROW(rms_norm_residual(ctx, h, x, y, w, {}, kEps), Error);
  EXPECT_THROW(rms_norm_residual(ctx, h, x, y, w, Guarded(ctx, DType::kI32, {8}), kEps), Error);
}

}  // namespace
}  // namespace gsae::test
