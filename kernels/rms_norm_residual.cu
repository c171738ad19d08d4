#include "kernels/rms_norm_residual.h"

#include "kernels/launch.h"
#include "kernels/rms_norm_row.cuh"

namespace gsae::cuda {
namespace {

// f32 or bf16, known at run time alone: as template parameters the dtypes of both would make four times the kernels.
struct Weight {
  const void* data;
  bool is_bf16;

  template <int kStep> __device__ void load(float (&w)[kStep], int c) const {
    if (is_bf16) load_row<kStep>(w, static_cast<const __nv_bfloat16*>(data) + c);
    else load_row<kStep>(w, static_cast<const float*>(data) + c);
  }
};
Weight weight(Tensor t) {
  CHECK(!t || t.dtype == DType::kF32 || t.dtype == DType::kBF16,
        "rms_norm_residual: a weight " + describe(t) + " must be f32 or bf16");
  return {t.ptr, t.dtype == DType::kBF16};
}

// x += the normed y, as add() rounds it: never a fused multiply-add, which would round once less.
template <int kStep> __device__ void add_rounded(float (&x)[kStep], const float (&normed)[kStep]) {
  for (int i = 0; i < kStep; ++i) x[i] = __fadd_rn(x[i], normed[i]);
}

// One block per row, of at most kPackets * kRowThreads * 4 elements: it stays in registers.
template <class Out, int kPackets>
__global__ void __launch_bounds__(kRowThreads) rms_norm_residual_kernel(Out* h, float* xs, const float* __restrict__ ys,
                                                                        Weight post, Weight next, int d, float eps) {
  const int64_t row = int64_t(blockIdx.x) * d;
  float x[kPackets][4], y[kPackets][4];
  for (int p = 0; p < kPackets; ++p) {
    const int c = packet_begin<4>(p);
    if (c >= d) break;
    load_row<4>(y[p], ys + row + c);
    load_row<4>(x[p], xs + row + c);
  }
  double sum = 0;
  for (int p = 0; p < kPackets; ++p)
    if (packet_begin<4>(p) < d) add_squares(sum, y[p]);
  const float inv_rms_y = inverse_rms(sum, d, eps);

  sum = 0;
  for (int p = 0; p < kPackets; ++p) {
    const int c = packet_begin<4>(p);
    if (c >= d) break;
    float w[4];
    post.load(w, c);
    scale_packet(y[p], w, inv_rms_y);
    add_rounded(x[p], y[p]);
    store_row<4>(xs + row + c, x[p]);
    add_squares(sum, x[p]);
  }
  if (!h) return;
  const float inv_rms_x = inverse_rms(sum, d, eps);
  for (int p = 0; p < kPackets; ++p) {
    const int c = packet_begin<4>(p);
    if (c >= d) break;
    float w[4];
    next.load(w, c);
    scale_packet(x[p], w, inv_rms_x);
    store_row<4>(h + row + c, x[p]);
  }
}

// The same for rows of any width, which are read again where they are needed again: each thread its own elements.
template <class Out, int kStep>
__global__ void __launch_bounds__(kRowThreads)
    rms_norm_residual_long_kernel(Out* h, float* xs, const float* __restrict__ ys, Weight post, Weight next, int d,
                                  float eps) {
  const int64_t row = int64_t(blockIdx.x) * d;
  double sum = 0;
  for (int c = packet_begin<kStep>(0); c < d; c += kRowThreads * kStep) {
    float y[kStep];
    load_row<kStep>(y, ys + row + c);
    add_squares(sum, y);
  }
  const float inv_rms_y = inverse_rms(sum, d, eps);

  sum = 0;
  for (int c = packet_begin<kStep>(0); c < d; c += kRowThreads * kStep) {
    float x[kStep], y[kStep], w[kStep];
    load_row<kStep>(y, ys + row + c);
    load_row<kStep>(x, xs + row + c);
    post.load(w, c);
    scale_packet(y, w, inv_rms_y);
    add_rounded(x, y);
    store_row<kStep>(xs + row + c, x);
    add_squares(sum, x);
  }
  if (!h) return;
  const float inv_rms_x = inverse_rms(sum, d, eps);
  for (int c = packet_begin<kStep>(0); c < d; c += kRowThreads * kStep) {
    float x[kStep], w[kStep];
    load_row<kStep>(x, xs + row + c);
    next.load(w, c);
    scale_packet(x, w, inv_rms_x);
    store_row<kStep>(h + row + c, x);
  }
}

template <class Out> auto kernel_for(int64_t d) {
  if (!row_is_vector(d)) return rms_norm_residual_long_kernel<Out, 1>;
  if (d <= 3 * 4 * kRowThreads) return rms_norm_residual_kernel<Out, 3>;
  if (d <= 6 * 4 * kRowThreads) return rms_norm_residual_kernel<Out, 6>;
  return rms_norm_residual_long_kernel<Out, 4>;
}

}  // namespace

void rms_norm_residual(Context& ctx, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps) {
  const Range range("rms_norm_residual");
  const int64_t d = x.dim[1];
  dispatch_device_float(h ? h.dtype : DType::kF32, [&]<class Out>() {
    launch(kernel_for<Out>(d), x.dim[0], kRowThreads, 0, ctx.cuda().stream, h ? device_data<Out>(h) : nullptr,
           x.data<float>(), y.data<float>(), weight(post), weight(next), static_cast<int>(d), eps);
  });
}

}  // namespace gsae::cuda
