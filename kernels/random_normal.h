#pragma once

#include "kernels/context.h"
#include "kernels/philox.h"
#include "kernels/tensor.h"

namespace gsae {

// out[i] = scale * (the i-th number of a standard normal distribution), by Box & Muller from the words of `random` at
// index i / 2 (element i even: cosine, odd: sine): the same numbers in any order and, up to the rounding of log, cosine
// and sine, on any device.
//
//   out  any shape, f32 or bf16, rounded once
void random_normal(Context& ctx, Tensor out, Random random, float scale);

namespace cpu {
void random_normal(Context& ctx, Tensor out, Random random, float scale);
}
namespace cuda {
void random_normal(Context& ctx, Tensor out, Random random, float scale);
}

}  // namespace gsae
