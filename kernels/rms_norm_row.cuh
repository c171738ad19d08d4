#pragma once

// One row of the norm, by one block, for the kernels of rms_norm and rms_norm_residual: which thread takes which
// elements, and so in which order a sum is taken, depends on the width alone, and both give the same bits. For .cu
// files.

#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae {

constexpr int kRowWarps = 6;  // packets of 4: 2304 = 3 * 192 of them, 4608 = 6 * 192, 3584 = 4.7 * 192
constexpr int kRowThreads = 32 * kRowWarps;

// Whether a thread takes 4 elements at a time. Rows that are not aligned for it are taken one by one.
inline bool row_is_vector(int64_t d) { return d % 4 == 0; }

// The first element of this thread's i-th packet.
template <int kStep> __device__ int packet_begin(int i) {
  return (i * kRowThreads + static_cast<int>(threadIdx.x)) * kStep;
}

template <int kStep> __device__ void add_squares(double& sum, const float (&x)[kStep]) {
  for (int i = 0; i < kStep; ++i) sum += double(x[i]) * x[i];
}

// 1 / sqrt(mean(x^2) + eps), to every thread; sum: this thread's squares.
__device__ inline float inverse_rms(double sum, int d, float eps) {
  return static_cast<float>(1.0 / sqrt(block_sum<kRowWarps>(sum) / d + eps));
}

// x * inv_rms * (1 + weight)
template <int kStep> __device__ void scale_packet(float (&x)[kStep], const float (&weight)[kStep], float inv_rms) {
  for (int i = 0; i < kStep; ++i) x[i] = x[i] * inv_rms * (1.0f + weight[i]);
}

}  // namespace gsae
