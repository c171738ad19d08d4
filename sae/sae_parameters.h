#pragma once

#include <string>
#include <vector>

#include "kernels/memory.h"

namespace gsae {

// The parameters of one JumpReLU SAE, in the layout of Gemma Scope's params.npz:
//
//   z = (x - b_dec) W_enc + b_enc            while training (normalised units)
//   z = x W_enc + b_enc                      folded (raw units): what files hold
//   f = z where z > threshold, else 0;  x_hat = f W_dec + b_dec
struct SaeParameters {
  Tensor W_enc;      // (d, F) f32
  Tensor W_dec;      // (F, d) f32, rows of unit norm
  Tensor b_enc;      // (F)    f32
  Tensor b_dec;      // (d)    f32
  Tensor threshold;  // (F)    f32, >= 0

  SaeParameters() = default;
  SaeParameters(Arena& arena, int64_t width, int64_t latents);

  int64_t width() const { return W_enc.dim[0]; }    // d
  int64_t latents() const { return W_enc.dim[1]; }  // F
};

// The same parameters on the context's device: themselves if they are there, else a copy in `memory`.
SaeParameters on_device(Context& ctx, const SaeParameters& params, Buffer& memory);

}  // namespace gsae
