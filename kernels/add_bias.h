#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// x[r] += bias: x (n, d) f32, bias (d) f32. Memory-bound: moves 2 * x.bytes().
void add_bias(Context& ctx, Tensor x, Tensor bias);

namespace cpu {
void add_bias(Context& ctx, Tensor x, Tensor bias);
}
namespace cuda {
void add_bias(Context& ctx, Tensor x, Tensor bias);
}

}  // namespace gsae
