#include "kernels/rms_norm.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr float kEps = 1e-6f;

struct RmsNorm : OnDevice {};
ON_DEVICES(RmsNorm);

// Of the formula, in doubles.
std::vector<double> reference(const std::vector<float>& x, const std::vector<float>& w, int64_t d, double eps) {
  std::vector<double> out(x.size());
  for (size_t row = 0; row < x.size(); row += d) {
    double sum = 0;
    for (int64_t c = 0; c < d; ++c) sum += double(x[row + c]) * x[row + c];
    for (int64_t c = 0; c < d; ++c) out[row + c] = x[row + c] / std::sqrt(sum / d + eps) * (1.0 + w[c]);
  }
  return out;
}

// By hand: the rms of (3, 4, 3, 4) is sqrt(12.5).
TEST_P(RmsNorm, WorkedExample) {
  Guarded x(ctx, DType::kF32, {1, 4}, {3, 4, 3, 4}), w(ctx, DType::kF32, {4}, {0, 1, 0, 1});
  Guarded out(ctx, DType::kF32, {1, 4});
  rms_norm(ctx, out, x, w, 0.0f);
  const float a = 3 / std::sqrt(12.5f), b = 2 * 4 / std::sqrt(12.5f);
  expect_close(out.read(), std::vector{a, b, a, b}, 0x1p-22);
}

// Relative, because nothing cancels but 1 + w, kept away from zero. f32: the roundings of the inverse
// rms, of 1 + w and of two products, half an ulp each; bf16: half an ulp of its own on top.
constexpr double kF32 = 4 * 0x1p-24, kBF16 = 0x1p-8 + kF32;

TEST_P(RmsNorm, MatchesDoubles) {
  struct Shape {
    int64_t n, d;
  };
  for (const auto [n, d] : {Shape{1, 1}, Shape{3, 7}, Shape{40, 192}, Shape{2, 2304}, Shape{17, 515}, Shape{2, 768},
                            Shape{2, 772}, Shape{3, 6}, Shape{2, 4100}})
    for (const DType out_type : {DType::kF32, DType::kBF16})
      for (const DType weight_type : {DType::kF32, DType::kBF16}) {
        auto x = uniform(n * d, 1, DType::kF32, -4, 4);
        for (int64_t c = 0; c < d; ++c) x[c] = 0;                        // a zero row: eps alone keeps it finite
        for (int64_t c = 0; c < d && n > 1; ++c) x[d + c] *= 1e3f;       // as large as a residual stream gets
        for (int64_t c = 0; c < d && n > 2; ++c) x[2 * d + c] *= 1e-4f;  // eps matters
        const auto w = uniform(d, 2, weight_type, -0.5, 2);
        Guarded out(ctx, out_type, {n, d});
        rms_norm(ctx, out, Guarded(ctx, DType::kF32, {n, d}, x), Guarded(ctx, weight_type, {d}, w), kEps);
        expect_close(out.read(), reference(x, w, d, double(kEps)), out_type == DType::kF32 ? kF32 : kBF16);
      }
}

TEST_P(RmsNorm, InPlaceGivesTheSameBits) {
  const auto values = uniform(33 * 70, 3, DType::kF32, -4, 4);
  Guarded w(ctx, DType::kBF16, {70}, uniform(70, 4, DType::kBF16, -1, 1));
  Guarded once(ctx, DType::kF32, {33, 70}), in(ctx, DType::kF32, {33, 70}, values);
  Guarded inout(ctx, DType::kF32, {33, 70}, values);
  rms_norm(ctx, once, in, w, kEps);
  rms_norm(ctx, inout, inout, w, kEps);
  EXPECT_EQ(once.read(), inout.read());
}

TEST_P(RmsNorm, NanTakesItsRow) {
  for (const int64_t d : {64, 67}) {
    auto v = uniform(3 * d, 1, DType::kF32, -4, 4);
    v[d + d / 2] = std::nanf("");
    Guarded out(ctx, DType::kF32, {3, d});
    rms_norm(ctx, out, Guarded(ctx, DType::kF32, {3, d}, v), Guarded(ctx, DType::kF32, {d}, std::vector<float>(d)),
             kEps);
    const auto got = out.read();
    for (int64_t i = 0; i < 3 * d; ++i) ASSERT_EQ(std::isnan(got[i]), i / d == 1) << i;
  }
}

TEST_P(RmsNorm, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 8}), w(ctx, DType::kF32, {4}), out(ctx, DType::kF32, {2, 8});
  Guarded narrow(ctx, DType::kBF16, {2, 8}), w8(ctx, DType::kF32, {8});
  EXPECT_THROW(rms_norm(ctx, out, x, w, kEps), Error);
  EXPECT_THROW(rms_norm(ctx, out, narrow, w8, kEps), Error);
}

}  // namespace
}  // namespace gsae::test
