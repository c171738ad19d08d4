#pragma once

#include "kernels/context.h"
#include "kernels/memory.h"
#include "sae/recipe.h"
#include "sae/sae_parameters.h"

namespace gsae {

// One SAE while it is trained: parameters in normalised units, what Adam remembers, and counters.
struct SaeState {
  SaeParameters p;
  SaeParameters second_moment;
  Tensor W_enc16, W_dec16;  // the weights rounded to bf16 for the products; absent in f32
  Tensor rates;             // (kRates) f32: see kernels/adam.h
  Tensor control;           // (kControls) f32: see kernels/sparsity.h
  Tensor fired;             // (F) i32, of the current step
  Tensor idle;              // (F) i64, rows since the latent last fired
  Tensor fired_total;       // (F) i64
  // What the log wants, f64, one tensor: the rest are its parts.
  Tensor log;                             // (kLatentStatistics + 4 + d)
  Tensor latents_summary;                 // (kLatentStatistics): see kernels/statistics.h
  Tensor sums;                            // (4 + d): sums since they were last read
  Tensor sum_error, sum_l0, sum_penalty;  // (1)
  Tensor sum_x2, sum_x;                   // (1), (d)

  SaeState(Arena& arena, int64_t width, int64_t latents, DType precision);
  DType precision() const { return W_enc16 ? DType::kBF16 : DType::kF32; }
};

// What a step needs beside the state. The products run over tiles of rows, so that what is (tile, F)
// stays in the cache, and no (B, F) tensor exists.
struct DenseWorkspace {
  Tensor x;        // (B, d)     f32, the rows of the step, normalised
  Tensor centred;  // (tile, d)  operand: x - b_dec
  Tensor z;        // (tile, F)  f32
  Tensor f;        // (tile, F)  operand
  Tensor x_hat;    // (tile, d)  f32
  Tensor dx;       // (tile, d)  operand
  Tensor df;       // (tile, F)  f32
  Tensor dz;       // (tile, F)  operand
  Tensor error;    // (B)        f32, |x_hat - x|^2
  Tensor l0;       // (B)        f32
  Tensor penalty;  // (B)        f32
  Tensor dl0;      // (B)        f32
  SaeParameters grad;
  Tensor pull_b_dec;  // (d, 1)     f32, the encoder's share of b_dec's gradient

  DenseWorkspace(Arena& arena, int64_t batch, int64_t tile, int64_t width, int64_t latents, DType precision);
};

// The gradients of the loss of w.x (DESIGN: docs/design.md, section 4) with respect to s.p, into w.grad;
// the losses of the rows and the counts of the latents on the way.
void dense_gradients(Context& ctx, SaeState& s, DenseWorkspace& w, const Recipe& recipe);

// Adam for every parameter, with s.rates.
void apply_gradients(Context& ctx, SaeState& s, const SaeParameters& grad, const Recipe& recipe);

}  // namespace gsae
