#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Root-mean-square norm with Gemma's unit-offset weight, over the last dimension:
//
//   out[r,c] = x[r,c] / sqrt(mean_c(x[r,c]^2) + eps) * (1 + weight[c])
//
//   out     (n, d)  f32 or bf16; may be x itself where f32
//   x       (n, d)  f32
//   weight  (d)     f32 or bf16, as stored in the checkpoint: 0 means "scale by one"
//
// In f32, the sum of squares in f64; rounded once, at the store. Memory-bound: moves
// x.bytes() + out.bytes().
//
// Zhang & Sennrich 2019, arXiv:1910.07467; the unit offset: Gemma, arXiv:2403.08295.
void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps);

namespace cpu {
void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps);
}
namespace cuda {
void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps);
}

}  // namespace gsae
