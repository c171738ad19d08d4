#pragma once

// What ops on single elements share: a thread for every few of them, as one 128-bit access where all operands are
// aligned to it. For .cu files.
//
//   struct Op {
//     static constexpr int kStep;                       // elements of an access
//     template <int N> __device__ void apply(int64_t i) const;  // elements [i, i + N), N = kStep or 1
//   };

#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {

constexpr int kElementwiseThreads = 256;

template <class Op, int kStep>
__global__ void __launch_bounds__(kElementwiseThreads) elementwise_kernel(Op op, int64_t n) {
  const int64_t i = (int64_t(blockIdx.x) * kElementwiseThreads + threadIdx.x) * kStep;
  if (i + kStep <= n) {
    op.template apply<kStep>(i);
  } else {
    for (int64_t j = i; j < n; ++j) op.template apply<1>(j);
  }
}

// operands: whatever op accesses, to see how they are aligned.
template <class Op>
void launch_elementwise(Context& ctx, const Op& op, int64_t n, std::initializer_list<const void*> operands,
                        std::source_location where = std::source_location::current()) {
  const bool vector = aligned(16, operands);
  const int64_t step = kElementwiseThreads * (vector ? Op::kStep : 1);
  launch(vector ? elementwise_kernel<Op, Op::kStep> : elementwise_kernel<Op, 1>,
         Grid((n + step - 1) / step, 1, 1, where), kElementwiseThreads, 0, ctx.cuda().stream, op, n);
}

}  // namespace gsae::cuda
