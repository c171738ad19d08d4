#pragma once

// The two halves of cuda::attention: by the dtype of q, k and v, with operands that are checked already.

#include "kernels/attention.h"

namespace gsae::cuda {

// By f32 FMAs, with tanh and exp as exact as CUDA's library has them: what the other is held against.
void attention_f32(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options);

// By tensor cores. shared_bytes: what a block may have of shared memory, which decides how large the tiles are, and
// with them the order of the sums.
void attention_bf16(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options,
                    int64_t shared_bytes);

}  // namespace gsae::cuda
