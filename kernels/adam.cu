#include "kernels/adam.h"

#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

// One element's step, as the CPU does it (kernels/adam.cc).
struct Update {
  float lr, beta2, unbias, grad_scale, epsilon, lowest;

  __device__ Update(const float* rates, AdamOptions o)
      : lr(o.rate_scale * rates[kLearningRate]),
        beta2(rates[kBeta2]),
        unbias(rates[kUnbias]),
        grad_scale(rates[kGradScale]),
        epsilon(o.epsilon),
        lowest(o.lowest) {}

  __device__ void operator()(float& p, float& v, float g) const {
    g *= grad_scale;
    v = beta2 * v + (1 - beta2) * g * g;
    p -= lr * g / (sqrtf(v * unbias) + epsilon);
    if (p < lowest) p = lowest;  // NaN stays
  }
};

constexpr int kThreads = 256, kWidth = 4;

__global__ void __launch_bounds__(kThreads) adam_kernel(float* p, float* v, const float* g, __nv_bfloat16* copy,
                                                        const float* rates, AdamOptions options, int64_t n) {
  const Update update(rates, options);
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  const bool whole = i + kWidth <= n;  // not the last few of an odd size
  float ps[kWidth] = {}, vs[kWidth] = {}, gs[kWidth] = {};
  if (whole) {
    load_row(ps, p + i);
    load_row(vs, v + i);
    load_row(gs, g + i);
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; ++k)
      if (i + k < n) ps[k] = p[i + k], vs[k] = v[i + k], gs[k] = g[i + k];
  }
#pragma unroll
  for (int k = 0; k < kWidth; ++k) update(ps[k], vs[k], gs[k]);
  if (whole) {
    store_row(p + i, ps);
    store_row(v + i, vs);
    if (copy) store_row(copy + i, ps);
  } else {
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      if (i + k >= n) continue;
      p[i + k] = ps[k], v[i + k] = vs[k];
      if (copy) copy[i + k] = static_cast<__nv_bfloat16>(ps[k]);
    }
  }
}

}  // namespace

void adam(Context& ctx, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions o) {
  const Range range("adam");
  const int64_t n = p.size();
  launch(adam_kernel, (n + kThreads * kWidth - 1) / (kThreads * kWidth), kThreads, 0, ctx.cuda().stream,
         p.data<float>(), v.data<float>(), g.data<float>(), copy ? device_data<__nv_bfloat16>(copy) : nullptr,
         rates.data<float>(), o, n);
}

}  // namespace gsae::cuda
