#include "kernels/adam.h"

#include "kernels/launch.h"
#include "kernels/reduce.cuh"
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

constexpr int kMostWarps = 16;

__device__ float inverse_norm(float square) { return square == 0 ? 1 : 1 / sqrtf(square); }

// A block per row, which stays in its registers from the one read to the one write. d is a multiple of 4, at most
// kVectors * 4 * blockDim.x.
template <int kVectors>
__global__ void __launch_bounds__(32 * kMostWarps)
    adam_unit_rows_kernel(float* W, float* v, const float* g, __nv_bfloat16* copy, const float* rates,
                          AdamOptions options, int d) {
  const int64_t row = int64_t(blockIdx.x) * d;
  float ws[kVectors][kWidth] = {}, vs[kVectors][kWidth], gs[kVectors][kWidth] = {};
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int c = (k * blockDim.x + threadIdx.x) * kWidth;
    if (c >= d) continue;
    load_row(gs[k], g + row + c);
    load_row(ws[k], W + row + c);
    load_row(vs[k], v + row + c);
  }
  const Update update(rates, options);

  float along = 0;
#pragma unroll
  for (int k = 0; k < kVectors; ++k)
    for (int i = 0; i < kWidth; ++i) along += gs[k][i] * ws[k][i];
  along = sum_over_block(along);

  float square = 0;
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int c = (k * blockDim.x + threadIdx.x) * kWidth;
    if (c >= d) continue;
    for (int i = 0; i < kWidth; ++i) {
      update(ws[k][i], vs[k][i], gs[k][i] - along * ws[k][i]);
      square += ws[k][i] * ws[k][i];
    }
    store_row(v + row + c, vs[k]);
  }
  const float inverse = inverse_norm(sum_over_block(square));

#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    const int c = (k * blockDim.x + threadIdx.x) * kWidth;
    if (c >= d) continue;
    for (int i = 0; i < kWidth; ++i) ws[k][i] *= inverse;
    store_row(W + row + c, ws[k]);
    if (copy) store_row(copy + row + c, ws[k]);
  }
}

// The same for rows of any length: each pass reads what it needs again, from a cache if it is there.
__global__ void __launch_bounds__(kThreads)
    adam_any_rows_kernel(float* W, float* v, const float* g, __nv_bfloat16* copy, const float* rates,
                         AdamOptions options, int64_t d) {
  const Update update(rates, options);
  const int64_t row = int64_t(blockIdx.x) * d;
  W += row, v += row, g += row;
  float along = 0, square = 0;
  for (int64_t c = threadIdx.x; c < d; c += blockDim.x) along += g[c] * W[c];
  along = sum_over_block(along);
  for (int64_t c = threadIdx.x; c < d; c += blockDim.x) {
    update(W[c], v[c], g[c] - along * W[c]);
    square += W[c] * W[c];
  }
  const float inverse = inverse_norm(sum_over_block(square));
  for (int64_t c = threadIdx.x; c < d; c += blockDim.x) {
    W[c] *= inverse;
    if (copy) copy[row + c] = static_cast<__nv_bfloat16>(W[c]);
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

void adam_unit_rows(Context& ctx, Tensor W, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions o) {
  const Range range("adam_unit_rows");
  const int64_t rows = W.dim[0], d = W.dim[1];
  const auto start = [&](auto kernel, int64_t threads, auto width) {
    launch(kernel, rows, static_cast<unsigned>(threads), 0, ctx.cuda().stream, W.data<float>(), v.data<float>(),
           g.data<float>(), copy ? device_data<__nv_bfloat16>(copy) : nullptr, rates.data<float>(), o, width);
  };
  const auto threads = [&](int vectors) { return (d + 128 * vectors - 1) / (128 * vectors) * 32; };
  // One vector of each operand in a thread for short rows, three for long ones: 192 threads for the 2B's 2304.
  if (d % kWidth == 0 && d <= 1024) start(adam_unit_rows_kernel<1>, threads(1), static_cast<int>(d));
  else if (d % kWidth == 0 && threads(3) <= 32 * kMostWarps)
    start(adam_unit_rows_kernel<3>, threads(3), static_cast<int>(d));
  else start(adam_any_rows_kernel, kThreads, d);
}

}  // namespace gsae::cuda
