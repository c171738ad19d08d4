#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// What lies between two products of a Gemma 2 layer, in one pass over the rows:
//
//   x += rms_norm(y; post)
//   h  = rms_norm(x; next)
//
//   h     (n, d)  f32 or bf16, or empty (then `next` may be empty too)
//   x     (n, d)  f32, in and out: the residual stream
//   y     (n, d)  f32
//   post, next  (d)  f32 or bf16, each
//
// The same bits as the composition rms_norm, add, rms_norm: the norm of y is rounded to f32 before
// it is added. Memory-bound: moves 2 * x.bytes() + y.bytes() + h.bytes().
void rms_norm_residual(Context& ctx, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps);

namespace cpu {
void rms_norm_residual(Context& ctx, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps);
}
namespace cuda {
void rms_norm_residual(Context& ctx, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps);
}

}  // namespace gsae
