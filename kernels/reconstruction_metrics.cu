#include "kernels/launch.h"
#include "kernels/reconstruction_metrics.h"
#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

// A warp per row, kWidth columns of it at once in each lane.
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    reconstruction_metrics_kernel(double* __restrict__ metrics, const float* __restrict__ x_hat,
                                  const float* __restrict__ x, const float* __restrict__ centre, int64_t n, int64_t d) {
  const int64_t r = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (r >= n) return;
  const int lane = threadIdx.x % 32;
  double sums[kReconstructionMetrics] = {};
#pragma unroll 2
  for (int64_t c = lane * kWidth; c < d; c += 32 * kWidth) {
    float hats[kWidth], xs[kWidth], centres[kWidth];
    load_row(hats, x_hat + r * d + c);
    load_row(xs, x + r * d + c);
    load_row(centres, centre + c);
    for (int i = 0; i < kWidth; ++i) {
      const double a = xs[i], b = hats[i], e = b - a, o = a - centres[i];
      sums[kErrorSquare] += e * e;
      sums[kNormSquare] += a * a;
      sums[kHatSquare] += b * b;
      sums[kDot] += a * b;
      sums[kCentredSquare] += o * o;
    }
  }
#pragma unroll
  for (int m = 0; m < kReconstructionMetrics; ++m) {
    const double sum = warp_sum(sums[m]);
    if (lane == m) metrics[r * kReconstructionMetrics + m] = sum;
  }
}

}  // namespace

void reconstruction_metrics(Context& ctx, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre) {
  const Range range("reconstruction_metrics");
  const int64_t n = x.dim[0], d = x.dim[1];
  launch(d % 4 == 0 ? reconstruction_metrics_kernel<4> : reconstruction_metrics_kernel<1>, (n + kWarps - 1) / kWarps,
         kThreads, 0, ctx.cuda().stream, metrics.data<double>(), x_hat.data<float>(), x.data<float>(),
         centre.data<float>(), n, d);
}

}  // namespace gsae::cuda
