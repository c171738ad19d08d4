#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// x += y, element by element.
//
//   x  any shape, f32, in and out
//   y  the same shape, f32
//
// Memory-bound: moves 3 * x.bytes().
void add(Context& ctx, Tensor x, Tensor y);

namespace cpu {
void add(Context& ctx, Tensor x, Tensor y);
}
namespace cuda {
void add(Context& ctx, Tensor x, Tensor y);
}

}  // namespace gsae
