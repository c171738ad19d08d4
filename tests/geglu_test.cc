#include "kernels/geglu.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct Geglu : OnDevice {};
ON_DEVICES(Geglu);

double gelu(double g) { return g / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))); }

// z = 2 sqrt(2/pi) (g + 0.044715 g^3) is rounded a few times before its exponential is taken, so the
// relative error of gelu(g) grows with |z| where g is negative: 2^-24 (8 + 4 |z|) of the result. A GPU's reciprocal is
// off by one unit in the last place more.
double allowed(double g, bool on_cuda) {
  return (on_cuda ? 10 : 8) + 4 * std::fabs(2 * std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g));
}

// Published by PyTorch for gelu(x, approximate='tanh') at -3, -1, -0.5, 0, 0.5, 1, 3.
TEST_P(Geglu, MatchesPyTorch) {
  const std::vector<float> gates{-3, -1, -0.5, 0, 0.5, 1, 3};
  const std::vector<double> want{-0.0036373920817729943, -0.15880800939172324, -0.15428599017485606, 0.0,
                                 0.34571400982514394,    0.8411919906082768,   2.996362607918227};
  std::vector<double> terms;
  for (int i = 0; i < 7; ++i) terms.push_back(std::fabs(want[i]) * allowed(gates[i], on_cuda()));
  std::vector<float> x = gates;
  x.resize(14, 1.0f);
  Guarded out(ctx, DType::kF32, {1, 7});
  geglu(ctx, out, Guarded(ctx, DType::kF32, {1, 14}, x));
  expect_close(out.read(), want, 0, 0x1p-24, terms);
}

TEST_P(Geglu, MatchesDoubles) {
  for (const DType in : {DType::kF32, DType::kBF16})
    for (const DType to : {DType::kF32, DType::kBF16})
      for (const int64_t ffn : {1, 7, 96, 1024, 1031, 1032}) {  // a block, one that is not aligned, one access more
        const int64_t n = 5 + 14 * (ffn < 100);
        const auto x = uniform(n * 2 * ffn, 5, in, -6, 6);
        std::vector<double> want(n * ffn), terms(n * ffn);
        for (int64_t r = 0; r < n; ++r)
          for (int64_t c = 0; c < ffn; ++c) {
            const double g = x[2 * r * ffn + c];
            want[r * ffn + c] = gelu(g) * x[(2 * r + 1) * ffn + c];
            terms[r * ffn + c] = std::fabs(want[r * ffn + c]) * allowed(g, on_cuda());
          }
        Guarded out(ctx, to, {n, ffn});
        geglu(ctx, out, Guarded(ctx, in, {n, 2 * ffn}, x));
        expect_close(out.read(), want, to == DType::kF32 ? 0 : 0x1p-8, 0x1p-24, terms);
      }
}

TEST_P(Geglu, LargeGatesAndBrokenOnes) {
  Guarded x(ctx, DType::kF32, {1, 12}, {1e4f, -1e4f, -40, HUGE_VALF, -HUGE_VALF, std::nanf(""), 2, 2, 2, 2, 2, 2});
  Guarded out(ctx, DType::kF32, {1, 6});
  geglu(ctx, out, x);
  const auto got = out.read();
  EXPECT_EQ(got[0], 2e4f);
  EXPECT_NEAR(got[1], 0, 1e-30);
  EXPECT_NEAR(got[2], 0, 1e-30);
  for (int i = 3; i < 6; ++i) EXPECT_FALSE(std::isfinite(got[i])) << i;
}

TEST_P(Geglu, RefusesWrongShapes) {
  Guarded out(ctx, DType::kF32, {2, 4}), x(ctx, DType::kF32, {2, 7});
  EXPECT_THROW(geglu(ctx, out, x), Error);
}

}  // namespace
}  // namespace gsae::test
