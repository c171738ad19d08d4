#pragma once

// The second half of a sum that blocks have begun: it adds what they left in the workspace, in a fixed order. For .cu
// files.

#include <algorithm>

#include "kernels/launch.h"

namespace gsae::cuda {

// out[i] = scale * sum_k partial[k, i], added to what is there if `add`
//   out (size) T;  partial (count, size) T
template <class T> struct PartialSum {
  T* out;
  const T* partial;
  int64_t count, size;
  T scale;
  bool add;
};

constexpr int kPartialWarps = 8;

// A lane per column, its partial sums dealt to the warps: so that one thread does not wait for them one by one.
// blockIdx.y: which of the two.
template <class T>
__global__ void __launch_bounds__(32 * kPartialWarps) sum_partials_kernel(PartialSum<T> first, PartialSum<T> second) {
  __shared__ T sums[kPartialWarps][32];
  const PartialSum<T> s = blockIdx.y == 0 ? first : second;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t i = int64_t(blockIdx.x) * 32 + lane;
  T sum = 0;
  if (i < s.size)
#pragma unroll 4
    for (int64_t k = warp; k < s.count; k += kPartialWarps) sum += s.partial[k * s.size + i];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || i >= s.size) return;
  for (int w = 1; w < kPartialWarps; ++w) sum += sums[w][lane];
  s.out[i] = s.add ? s.out[i] + s.scale * sum : s.scale * sum;
}

template <class T> void sum_partials(Context& ctx, PartialSum<T> first, PartialSum<T> second) {
  launch(sum_partials_kernel<T>, Grid((std::max(first.size, second.size) + 31) / 32, 2), 32 * kPartialWarps, 0,
         ctx.cuda().stream, first, second);
}
template <class T> void sum_partials(Context& ctx, PartialSum<T> only) {
  launch(sum_partials_kernel<T>, (only.size + 31) / 32, 32 * kPartialWarps, 0, ctx.cuda().stream, only, only);
}

}  // namespace gsae::cuda
