#include "kernels/rms_norm.h"

#include "kernels/launch.h"
#include "kernels/rms_norm_row.cuh"

namespace gsae::cuda {
namespace {

// One block per row. The second read of x comes from L1: a row is a few KiB.
template <class Out, class W, int kStep>
__global__ void __launch_bounds__(kRowThreads)
    rms_norm_kernel(Out* out, const float* x, const W* __restrict__ weight, int d, float eps) {
  const int64_t row = int64_t(blockIdx.x) * d;
  double sum = 0;
  for (int c = packet_begin<kStep>(0); c < d; c += kRowThreads * kStep) {
    float v[kStep];
    load_row<kStep>(v, x + row + c);
    add_squares(sum, v);
  }
  const float inv_rms = inverse_rms(sum, d, eps);
  for (int c = packet_begin<kStep>(0); c < d; c += kRowThreads * kStep) {
    float v[kStep], w[kStep];
    load_row<kStep>(v, x + row + c);
    load_row<kStep>(w, weight + c);
    scale_packet(v, w, inv_rms);
    store_row<kStep>(out + row + c, v);
  }
}

}  // namespace

void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps) {
  const Range range("rms_norm");
  const int64_t rows = x.dim[0], d = x.dim[1];
  dispatch_device_float(out.dtype, [&]<class Out>() {
    dispatch_device_float(weight.dtype, [&]<class W>() {
      launch(row_is_vector(d) ? rms_norm_kernel<Out, W, 4> : rms_norm_kernel<Out, W, 1>, rows, kRowThreads, 0,
             ctx.cuda().stream, device_data<Out>(out), x.data<float>(), device_data<W>(weight), static_cast<int>(d),
             eps);
    });
  });
}

}  // namespace gsae::cuda
