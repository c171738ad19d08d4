#pragma once

#include "kernels/context.h"
#include "kernels/memory.h"
#include "sae/sae_parameters.h"

namespace gsae {

// A folded SAE on raw activations, in f32: what a released SAE does to a model.
//
//   f     = z where z > threshold, else 0,  z = x W_enc + b_enc
//   x_hat = f W_dec + b_dec
//
//   f (n, F) f32;  x, x_hat (n, d) f32;  l0 (n) f32, or empty;  fired (F) i32, accumulated, or empty
void encode(Context& ctx, Tensor f, Tensor x, const SaeParameters& sae, Tensor l0 = {}, Tensor fired = {});
void decode(Context& ctx, Tensor x_hat, Tensor f, const SaeParameters& sae);

// The latents of some rows at a time: wide SAEs have more latents than memory for all rows of a batch.
// Serves every SAE of at most `latents` latents.
struct SaeWorkspace {
  SaeWorkspace(Arena& arena, int64_t latents, int64_t rows);  // rows: the most that come at once

  Tensor f;  // (tile * latents) f32
};

// Both, tile by tile. x_hat may be x itself.
void reconstruct(Context& ctx, Tensor x_hat, Tensor x, const SaeParameters& sae, const SaeWorkspace& workspace,
                 Tensor l0 = {}, Tensor fired = {});

}  // namespace gsae
