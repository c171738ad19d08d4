#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// t = 0, any dtype.
void fill_zero(Context& ctx, Tensor t);

// a -= b: f32, the same shape.
void subtract(Context& ctx, Tensor a, Tensor b);

// a *= scale: f32.
void multiply(Context& ctx, Tensor a, float scale);

namespace cpu {
void fill_zero(Context& ctx, Tensor t);
void subtract(Context& ctx, Tensor a, Tensor b);
void multiply(Context& ctx, Tensor a, float scale);
}  // namespace cpu
namespace cuda {
void fill_zero(Context& ctx, Tensor t);
void subtract(Context& ctx, Tensor a, Tensor b);
void multiply(Context& ctx, Tensor a, float scale);
}  // namespace cuda

}  // namespace gsae
