#include "kernels/device_fault.cuh"
#include "kernels/embedding.h"
#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 128;

// One block per row.
template <class T, int kStep>
__global__ void __launch_bounds__(kThreads)
    embedding_kernel(float* x, const T* __restrict__ table, const int32_t* __restrict__ tokens, int64_t vocabulary,
                     int64_t d, float scale, DeviceFault* fault) {
  const int64_t r = blockIdx.x;
  const int32_t token = tokens[r];
  float* out = x + r * d;
  if (token < 0 || token >= vocabulary) {  // there is no row to read: nothing that follows shall look like a number
    if (threadIdx.x == 0) report(fault, DeviceFault::kTokenOutside, r, token, vocabulary);
    for (int64_t c = threadIdx.x; c < d; c += kThreads) out[c] = __int_as_float(0x7fc00000);
    return;
  }
  const T* row = table + token * d;
  uint32_t largest = 0;  // the largest exponent tells whether the row is finite
  for (int64_t c = threadIdx.x * kStep; c < d; c += kThreads * kStep) {
    float v[kStep];
    load_row<kStep>(v, row + c);
    for (int i = 0; i < kStep; ++i) {
      largest = max(largest, __float_as_uint(v[i]) & 0x7fffffffu);
      v[i] *= scale;
    }
    store_row<kStep>(out + c, v);
  }
  if (largest >= 0x7f800000u) report(fault, DeviceFault::kEmbeddingNotFinite, r, token, vocabulary);
}

}  // namespace

void embedding(Context& ctx, Tensor x, Tensor table, Tensor tokens, float scale) {
  const Range range("embedding");
  const int64_t d = x.dim[1];
  dispatch_device_float(table.dtype, [&]<class T>() {
    constexpr int kVector = 16 / sizeof(T);
    const bool vector = d % kVector == 0 && aligned(16, {x.ptr, table.ptr});
    launch(vector ? embedding_kernel<T, kVector> : embedding_kernel<T, 1>, x.dim[0], kThreads, 0, ctx.cuda().stream,
           x.data<float>(), device_data<T>(table), tokens.data<int32_t>(), table.dim[0], d, scale, ctx.cuda().fault);
  });
}

}  // namespace gsae::cuda
