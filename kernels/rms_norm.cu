#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/rms_norm.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8;

// One block per row. The second read of x comes from L1 or L2: a row is a few KiB. kVector: rows are 16-byte aligned.
template <class Out, class W, bool kVector>
__global__ void __launch_bounds__(32 * kWarps)
    rms_norm_kernel(Out* out, const float* x, const W* __restrict__ weight, int d, float eps) {
  constexpr int kStep = kVector ? 4 : 1;
  const int64_t row = int64_t(blockIdx.x) * d;

  double sum = 0;
  for (int c = threadIdx.x * kStep; c < d; c += 32 * kWarps * kStep) {
    float xv[kStep];
    load_row<kStep>(xv, x + row + c);
    for (int i = 0; i < kStep; ++i) sum += double(xv[i]) * xv[i];
  }
  const float inv_rms = static_cast<float>(1.0 / sqrt(block_sum<kWarps>(sum) / d + eps));

  for (int c = threadIdx.x * kStep; c < d; c += 32 * kWarps * kStep) {
    float xv[kStep], w[kStep];
    load_row<kStep>(xv, x + row + c);
    load_row<kStep>(w, weight + c);
    for (int i = 0; i < kStep; ++i) xv[i] = xv[i] * inv_rms * (1.0f + w[i]);
    store_row<kStep>(out + row + c, xv);
  }
}

}  // namespace

void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps) {
  const Range range("rms_norm");
  const int64_t rows = x.dim[0], d = x.dim[1];
  dispatch_device_float(out.dtype, [&]<class Out>() {
    dispatch_device_float(weight.dtype, [&]<class W>() {
      launch(d % 8 == 0 ? rms_norm_kernel<Out, W, true> : rms_norm_kernel<Out, W, false>, rows, 32 * kWarps, 0,
             ctx.cuda().stream, device_data<Out>(out), x.data<float>(), device_data<W>(weight), static_cast<int>(d),
             eps);
    });
  });
}

}  // namespace gsae::cuda
