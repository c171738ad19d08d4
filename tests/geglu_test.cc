#include "kernels/geglu.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

double gelu(double g) { return g / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))); }

// Published by PyTorch for gelu(x, approximate='tanh') at -3, -1, -0.5, 0, 0.5, 1, 3.
TEST(GegluCpu, MatchesPyTorch) {
  Context ctx(Device::kCpu);
  Guarded x(ctx, DType::kF32, {1, 14}, {-3, -1, -0.5, 0, 0.5, 1, 3, 1, 1, 1, 1, 1, 1, 1}),
      out(ctx, DType::kF32, {1, 7});
  geglu(ctx, out, x);
  expect_close(out.read(),
               std::vector<double>{-0.0036373920817729943, -0.15880800939172324, -0.15428599017485606, 0.0,
                                   0.34571400982514394, 0.8411919906082768, 2.996362607918227},
               0x1p-21);
}

// z = 2 sqrt(2/pi) (g + 0.044715 g^3) is rounded a few times before its exponential is taken, so the
// relative error of gelu(g) grows with |z| where g is negative: 2^-24 (8 + 4 |z|) of the result.
TEST(GegluCpu, MatchesDoubles) {
  Context ctx(Device::kCpu);
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t ffn : {1, 7, 96, 1031}) {
      const int64_t n = 19;
      const auto x = uniform(n * 2 * ffn, 5, DType::kF32, -6, 6);
      std::vector<double> want(n * ffn), terms(n * ffn);
      for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < ffn; ++c) {
          const double g = x[2 * r * ffn + c], z = 2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
          want[r * ffn + c] = gelu(g) * x[(2 * r + 1) * ffn + c];
          terms[r * ffn + c] = std::fabs(want[r * ffn + c]) * (8 + 4 * std::fabs(z));
        }
      Guarded out(ctx, dtype, {n, ffn});
      geglu(ctx, out, Guarded(ctx, DType::kF32, {n, 2 * ffn}, x));
      expect_close(out.read(), want, dtype == DType::kF32 ? 0 : 0x1p-8, 0x1p-24, terms);
    }
}

TEST(GegluCpu, LargeGatesAndBrokenOnes) {
  Context ctx(Device::kCpu);
  Guarded x(ctx, DType::kF32, {1, 12}, {1e4f, -1e4f, -40, HUGE_VALF, -HUGE_VALF, std::nanf(""), 2, 2, 2, 2, 2, 2});
  Guarded out(ctx, DType::kF32, {1, 6});
  geglu(ctx, out, x);
  const auto got = out.read();
  EXPECT_EQ(got[0], 2e4f);
  EXPECT_NEAR(got[1], 0, 1e-30);
  EXPECT_NEAR(got[2], 0, 1e-30);
  for (int i = 3; i < 6; ++i) EXPECT_FALSE(std::isfinite(got[i])) << i;
}

TEST(GegluCpu, RefusesWrongShapes) {
  Context ctx(Device::kCpu);
  Guarded out(ctx, DType::kF32, {2, 4}), x(ctx, DType::kF32, {2, 7});
  EXPECT_THROW(geglu(ctx, out, x), Error);
}

}  // namespace
}  // namespace gsae::test
