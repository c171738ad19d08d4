#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// What a language model is to predict at each position:
//
//   targets[b,t] = tokens[b,t+1], and -1 (none) at t = T - 1
//
//   targets  (B, T)  i32; not tokens itself
//   tokens   (B, T)  i32
void next_tokens(Context& ctx, Tensor targets, Tensor tokens);

namespace cpu {
void next_tokens(Context& ctx, Tensor targets, Tensor tokens);
}
namespace cuda {
void next_tokens(Context& ctx, Tensor targets, Tensor tokens);
}

}  // namespace gsae
