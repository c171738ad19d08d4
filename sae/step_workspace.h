#pragma once

#include "kernels/entries.h"
#include "kernels/latents.h"
#include "kernels/memory.h"
#include "sae/step_sizes.h"

namespace gsae {

// What a training step needs beside the SAE's state. SAEs that step one after the other lie theirs on the same memory;
// x comes first in it, so that the SAEs of one place, whose width is the same, find the rows that were drawn once.
// Operand: the dtype of the products, bf16 or f32.
struct StepWorkspace {
  // of the whole batch
  Tensor x;                       // (B, d) f32, the rows of the step, normalised
  Tensor centred;                 // (B, d) operand: x - b_dec
  Tensor dx;                      // (B, d) operand: the gradient of x_hat
  Tensor error;                   // (B)    f32, |x_hat - x|^2
  Tensor l0;                      // (B)    f32
  Tensor penalty;                 // (B)    f32
  Tensor dl0;                     // (B)    f32
  Tensor grad_b_dec, pull_b_dec;  // (d) f32: the gradient of b_dec, and the encoder's share of it

  // The dense step's, in tiles: no (B, F) tensor exists.
  struct Dense {
    Tensor z;            // (rows * latents) f32
    Tensor df;           // (rows * latents, at least rows * d) f32
    Tensor f, dz;        // (rows * latents) operand
    Tensor x_hat;        // (rows, d) f32
    Tensor l0;           // (rows) f32, of a tile's latents
    LatentTensors grad;  // of a tile's latents
  } dense;

  // The exactly sparse step's, in the same memory: a step is one or the other.
  struct Sparse {
    Tensor zt;  // (select, B) f32, pre-activations without their bias, a latent a row
    Entries entries;
    Tensor grad_b_enc;  // (F) f32
  } sparse;

  StepWorkspace(Arena& arena, const StepSizes& sizes, int64_t width, int64_t latents, DType precision);
};

}  // namespace gsae
