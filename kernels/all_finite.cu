#include "kernels/all_finite.h"
#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 256, kPackets = 4;  // packets of a thread, all on their way at once

// *found = 1 if an element is not finite: whoever sees one says so, in any order.
template <class T, int kStep>
__global__ void __launch_bounds__(kThreads) find_not_finite_kernel(int32_t* found, const T* __restrict__ x, int64_t n) {
  float v[kPackets][kStep] = {};
  for (int p = 0; p < kPackets; ++p) {
    const int64_t i = ((int64_t(blockIdx.x) * kPackets + p) * kThreads + threadIdx.x) * kStep;
    if (i + kStep <= n) {
      load_row<kStep>(v[p], x + i);
    } else {
      for (int k = 0; k < kStep; ++k)
        if (i + k < n) v[p][k] = static_cast<float>(x[i + k]);
    }
  }
  uint32_t largest = 0;  // the largest exponent decides
  for (int p = 0; p < kPackets; ++p)
    for (int k = 0; k < kStep; ++k) largest = max(largest, __float_as_uint(v[p][k]) & 0x7fffffffu);
  if (largest >= 0x7f800000u) *found = 1;
}

}  // namespace

bool all_finite(Context& ctx, Tensor x) {
  const Range range("all_finite");
  const cudaStream_t stream = ctx.cuda().stream;
  int32_t* found = workspace<int32_t>(ctx, 1);
  CUDA_CHECK(cudaMemsetAsync(found, 0, sizeof *found, stream));
  dispatch_device_float(x.dtype, [&]<class T>() {
    constexpr int kVector = 16 / sizeof(T);
    const bool vector = aligned(16, {x.ptr});
    const int64_t n = x.size(), step = kThreads * kPackets * (vector ? kVector : 1);
    launch(vector ? find_not_finite_kernel<T, kVector> : find_not_finite_kernel<T, 1>, (n + step - 1) / step, kThreads,
           0, stream, found, device_data<T>(x), n);
  });
  int32_t answer = 0;
  CUDA_CHECK(cudaMemcpyAsync(&answer, found, sizeof answer, cudaMemcpyDeviceToHost, stream));
  CUDA_CHECK(cudaStreamSynchronize(stream));
  return answer == 0;
}

}  // namespace gsae::cuda
