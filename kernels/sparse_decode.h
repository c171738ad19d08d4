#pragma once

#include "kernels/context.h"
#include "kernels/entries.h"
#include "kernels/tensor.h"

namespace gsae {

// Decoder, residual and the gradient of the latents, row by row, from lists (kernels/entries.h) that fit:
//
//   x_hat[r]  = sum over r's entries with not z <= theta[i] of round(z) W_dec[i], in the order of the latents
//   e[r]      = x_hat[r] + bias - x[r]
//   error[r]  = |e[r]|^2;   l0[r] = the number of those entries
//   dx[r]     = scale * e[r]                       scale = 2 / B: the derivative of the mean squared error
//   dbias    += sum_r scale * e[r]                 from the unrounded e
//   df        = dx[r] . W_dec[i]                   for all of r's entries, into e.df, with dx as it was rounded
//
//   dx           (B, d)  f32 or bf16: the precision of the step; z is rounded to it where it multiplies
//   error, l0    (B)     f32
//   dbias        (d)     f32, accumulated
//   x            (B, d)  f32; may be dx itself where that is f32
//   W_dec        (F, d)  dtype of dx;  bias (d) f32;  theta (F) f32
//
// The same as jump_relu, matmul, reconstruction_error and matmul on (B, F), up to the order of sums. Gathers each
// entry's row of W_dec twice, the second time from a cache: count * d * size_of(dx.dtype) bytes from memory.
void sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& entries, Tensor x,
                   Tensor W_dec, Tensor bias, Tensor theta, float scale);

namespace cpu {
void sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& entries, Tensor x,
                   Tensor W_dec, Tensor bias, Tensor theta, float scale);
}
namespace cuda {
void sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& entries, Tensor x,
                   Tensor W_dec, Tensor bias, Tensor theta, float scale);
}

}  // namespace gsae
