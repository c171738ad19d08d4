#pragma once

// The threads that share one row (or one latent): a warp where rows are short, a block where they are long. For .cu
// files; kernels take one of these as a template parameter.

#include <cstdint>

#include "kernels/reduce.cuh"

namespace gsae {

struct WarpTeam {
  static constexpr int kMostThreads = 128, kInBlock = kMostThreads / 32;  // of a block; teams in it

  static __device__ int64_t index() { return int64_t(blockIdx.x) * kInBlock + threadIdx.x / 32; }  // in the grid
  static __device__ int in_block() { return static_cast<int>(threadIdx.x / 32); }
  static __device__ int rank() { return static_cast<int>(threadIdx.x % 32); }
  static __device__ int size() { return 32; }
  static __device__ void sync() { __syncwarp(); }
  template <class T> static __device__ T sum(T x) { return warp_sum(x); }  // for every thread, by a fixed tree
};

struct BlockTeam {
  static constexpr int kMostThreads = 512, kInBlock = 1;

  static __device__ int64_t index() { return blockIdx.x; }
  static __device__ int in_block() { return 0; }
  static __device__ int rank() { return static_cast<int>(threadIdx.x); }
  static __device__ int size() { return static_cast<int>(blockDim.x); }
  static __device__ void sync() { __syncthreads(); }
  template <class T> static __device__ T sum(T x) { return sum_over_block(x); }
};

}  // namespace gsae
