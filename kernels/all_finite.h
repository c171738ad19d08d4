#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Whether x holds neither NaN nor infinity. Waits for the device: not for the inner loop.
//
//   x  any shape, f32 or bf16
//
// Memory-bound: moves x.bytes().
bool all_finite(Context& ctx, Tensor x);

namespace cpu {
bool all_finite(Context& ctx, Tensor x);
}
namespace cuda {
bool all_finite(Context& ctx, Tensor x);
}

}  // namespace gsae
