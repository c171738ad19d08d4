#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// x = cap * tanh(x / cap), in place: keeps logits within (-cap, cap).
//
//   x    any shape, f32
//   cap  positive
//
// Relative error below 6e-7. Memory-bound: moves 2 * x.bytes(). Gemma 2, arXiv:2408.00118, section 2.
void softcap(Context& ctx, Tensor x, float cap);

namespace cpu {
void softcap(Context& ctx, Tensor x, float cap);
}
namespace cuda {
void softcap(Context& ctx, Tensor x, float cap);
}

}  // namespace gsae
