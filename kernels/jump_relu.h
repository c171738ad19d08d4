#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// JumpReLU, and the counts that are a by-product of it:
//
//   f[r,i]  = z[r,i] where z[r,i] > theta[i], else 0
//   l0[r]   = number of i with z[r,i] > theta[i]
//   fired[i] += number of r with z[r,i] > theta[i]
//
// A NaN counts as above its threshold: it reaches f, and so the loss, instead of passing for a silent latent.
//
//   f      (n, F)  f32 or bf16 (rounded once; the comparison is in f32)
//   z      (n, F)  f32, with its bias (kernels/matmul.h adds it); f may be z itself where f is f32
//   theta  (F)     f32, >= 0
//   l0     (n)     f32, or empty
//   fired  (F)     i32, or empty
//
// Memory-bound: moves z.bytes() + f.bytes(). Gemma Scope, arXiv:2408.05147, section 2.
void jump_relu(Context& ctx, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired);

// The gradients that reach JumpReLU's inputs:
//
//   dz[r,i]    = df[r,i] where z[r,i] > theta[i], else 0
//   dbias[i]  += sum_r dz[r,i]
//   dtheta[i] += -(1/eps) sum_r [|z[r,i] - theta[i]| < eps/2] (theta[i] df[r,i] + dl0[r])
//
// where dl0[r] is the derivative of the loss with respect to row r's L0 and eps the bandwidth of the
// rectangle kernel; none of the estimator reaches z.
//
//   dz      (n, F)  f32 or bf16, rounded once; may be df itself where dz is f32
//   dbias   (F)     f32, accumulated, from the unrounded dz
//   dtheta  (F)     f32, accumulated
//   df, z   (n, F)  f32, z with its bias
//   theta   (F)     f32
//   dl0     (n)     f32
//
// Sums over rows run in row order, on cuda within chunks of rows that follow from the shape (kernels/row_chunks.h): the
// same bits with any number of threads. Memory-bound: moves z.bytes() + df.bytes() + dz.bytes(); cuda reads df only
// where a latent is active or in the window. Gemma Scope, arXiv:2408.05147, appendix B.
void jump_relu_backward(Context& ctx, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                        Tensor dl0, float bandwidth);

namespace cpu {
void jump_relu(Context& ctx, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired);
void jump_relu_backward(Context& ctx, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                        Tensor dl0, float bandwidth);
}  // namespace cpu
namespace cuda {
void jump_relu(Context& ctx, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired);
void jump_relu_backward(Context& ctx, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                        Tensor dl0, float bandwidth);
}  // namespace cuda

}  // namespace gsae
