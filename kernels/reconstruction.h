#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The reconstruction's error and its gradient, from the decoder's product:
//
//   e[r]     = x_hat[r] + bias - x[r]
//   error[r] = |e[r]|^2
//   dx[r]    = scale * e[r]                 scale = 2 / batch: the derivative of the mean squared error
//   dbias   += sum_r scale * e[r]
//
//   dx     (n, d)  f32 or bf16, rounded once; may be x_hat itself where it is f32
//   error  (n)     f32
//   dbias  (d)     f32, accumulated, from the unrounded e
//   x_hat  (n, d)  f32, without the bias; holds e afterwards (or dx, if they are the same)
//   bias   (d)     f32
//   x      (n, d)  f32
//
// Memory-bound. Sums over rows run in row order within fixed blocks.
void reconstruction_error(Context& ctx, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                          float scale);

namespace cpu {
void reconstruction_error(Context& ctx, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                          float scale);
}
namespace cuda {
void reconstruction_error(Context& ctx, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                          float scale);
}

}  // namespace gsae
