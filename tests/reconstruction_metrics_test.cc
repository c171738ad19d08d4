#include "kernels/reconstruction_metrics.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct ReconstructionMetrics : OnDevice {};
ON_DEVICES(ReconstructionMetrics);

// By hand: x = (1, 2), x_hat = (3, -1), centre = (1, 1); then a perfect reconstruction.
TEST_P(ReconstructionMetrics, WorkedExample) {
  Guarded metrics(ctx, DType::kF64, {2, kReconstructionMetrics});
  reconstruction_metrics(ctx, metrics, Guarded(ctx, DType::kF32, {2, 2}, {3, -1, 2, 2}),
                         Guarded(ctx, DType::kF32, {2, 2}, {1, 2, 2, 2}), Guarded(ctx, DType::kF32, {2}, {1, 1}));
  EXPECT_EQ(download<double>(ctx, metrics), (std::vector<double>{13, 5, 10, 1, 1, 0, 8, 8, 8, 2}));
}

// Differences of floats round once in f64 and sums of d terms d times at most: d + 4 half ulps of the sum of the terms'
// absolute values, with a square's two factors.
TEST_P(ReconstructionMetrics, MatchDoubles) {
  for (const int64_t d : {1, 5, 64, 132, 515, 2304}) {
    const int64_t n = d == 64 ? 19 : 9;
    const auto x = uniform(n * d, 1, DType::kF32, -3, 5), hat = uniform(n * d, 2, DType::kF32, -4, 4),
               c = uniform(d, 3, DType::kF32, 0, 2);
    Guarded metrics(ctx, DType::kF64, {n, kReconstructionMetrics});
    reconstruction_metrics(ctx, metrics, Guarded(ctx, DType::kF32, {n, d}, hat), Guarded(ctx, DType::kF32, {n, d}, x),
                           Guarded(ctx, DType::kF32, {d}, c));
    const auto got = download<double>(ctx, metrics);
    for (int64_t r = 0; r < n; ++r) {
      long double want[kReconstructionMetrics] = {}, dot_terms = 0;
      for (int64_t i = 0; i < d; ++i) {
        const long double a = x[r * d + i], b = hat[r * d + i], o = a - c[i];
        want[kErrorSquare] += (b - a) * (b - a), want[kNormSquare] += a * a, want[kHatSquare] += b * b;
        want[kDot] += a * b, want[kCentredSquare] += o * o, dot_terms += std::fabs(a * b);
      }
      for (int k = 0; k < kReconstructionMetrics; ++k) {
        const long double terms = k == kDot ? dot_terms : want[k];
        EXPECT_NEAR(got[r * kReconstructionMetrics + k], double(want[k]), double(d + 4) * 0x1p-53 * double(terms))
            << d << " " << k;
      }
    }
  }
}

TEST_P(ReconstructionMetrics, NanPropagates) {
  const int64_t d = 70;
  std::vector<float> x(3 * d, 1.0f);
  x[d + 69] = std::nanf("");
  Guarded metrics(ctx, DType::kF64, {3, kReconstructionMetrics});
  reconstruction_metrics(ctx, metrics, Guarded(ctx, DType::kF32, {3, d}, std::vector<float>(3 * d, 2.0f)),
                         Guarded(ctx, DType::kF32, {3, d}, x), Guarded(ctx, DType::kF32, {d}, std::vector<float>(d)));
  const auto got = download<double>(ctx, metrics);
  for (int64_t r = 0; r < 3; ++r)
    for (int k = 0; k < kReconstructionMetrics; ++k)
      EXPECT_EQ(std::isnan(got[r * kReconstructionMetrics + k]), r == 1 && k != kHatSquare) << r << " " << k;
}

TEST_P(ReconstructionMetrics, SameBitsEveryTime) {
  const int64_t n = 33, d = 200;
  std::vector<double> first;
  for (int run = 0; run < 3; ++run) {
    Guarded metrics(ctx, DType::kF64, {n, kReconstructionMetrics});
    reconstruction_metrics(ctx, metrics, Guarded(ctx, DType::kF32, {n, d}, uniform(n * d, 1, DType::kF32, -1, 1)),
                           Guarded(ctx, DType::kF32, {n, d}, uniform(n * d, 2, DType::kF32, -1, 1)),
                           Guarded(ctx, DType::kF32, {d}, uniform(d, 3, DType::kF32, -1, 1)));
    if (run == 0) first = download<double>(ctx, metrics);
    else EXPECT_EQ(download<double>(ctx, metrics), first);
  }
}

TEST_P(ReconstructionMetrics, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 3}), c(ctx, DType::kF32, {3}), m(ctx, DType::kF64, {2, 5}), c2(ctx, DType::kF32, {2});
  Guarded m4(ctx, DType::kF64, {2, 4}), mf(ctx, DType::kF32, {2, 5}), y(ctx, DType::kF32, {3, 3});
  EXPECT_THROW(reconstruction_metrics(ctx, m, y, x, c), Error);
  EXPECT_THROW(reconstruction_metrics(ctx, m, x, x, c2), Error);
  EXPECT_THROW(reconstruction_metrics(ctx, m4, x, x, c), Error);
  EXPECT_THROW(reconstruction_metrics(ctx, mf, x, x, c), Error);
}

}  // namespace
}  // namespace gsae::test
