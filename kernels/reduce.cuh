#pragma once

// Reductions by fixed trees: the same bits from run to run, whatever the order of the threads. For .cu files.

#include <cstdint>

namespace gsae {

constexpr unsigned kAllLanes = 0xffffffffu;

// N elements moved as one 16-byte access. Pointers must be 16-byte aligned: Arena aligns tensors, not their rows.
template <class T> struct alignas(16) Vec {
  static constexpr int kSize = 16 / sizeof(T);
  T v[kSize];
};

template <class T> __device__ T warp_sum(T x) {
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(kAllLanes, x, lane);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int lane = 16; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
  return x;
}

// Sum over a block of kWarps full warps, returned to every thread. May be called again and again.
template <int kWarps, class T> __device__ T block_sum(T x) {
  __shared__ T partial[kWarps];
  x = warp_sum(x);
  __syncthreads();  // an earlier call may still be reading
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  T total = 0;
  for (int w = 0; w < kWarps; ++w) total += partial[w];
  return total;
}

// The same over a block of up to 16 full warps.
template <class T> __device__ T sum_over_block(T x) {
  __shared__ T partial[16];
  x = warp_sum(x);
  __syncthreads();  // an earlier call may still be reading
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  T total = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) total += partial[w];
  return total;
}

}  // namespace gsae
