#pragma once

#include <string>
#include <utility>
#include <vector>

#include "kernels/context.h"
#include "kernels/latents.h"
#include "kernels/memory.h"

namespace gsae {

// One SAE while it is trained: parameters in normalised units, what Adam remembers, and counters. All of it is the
// SAE's own; what a step needs beside it is a workspace that the SAEs of a run share (sae/step_workspace.h).
//
//   z = (x - b_dec) W_enc^T + b_enc;  f = z where z > threshold, else 0;  x_hat = f W_dec + b_dec
struct SaeState {
  LatentState latents;  // p and v: W_enc, W_dec (F, d), b_enc, threshold (F); bf16 copies; stamp
  Tensor b_dec;         // (d) f32
  Tensor b_dec_moment;  // (d) f32
  Tensor rates;         // (kRates) f32: see kernels/adam.h
  Tensor clock;         // (1) i64, the number of this step, from 1
  Tensor control;       // (kControls) f32: see kernels/sparsity.h
  Tensor fired;         // (F) i32, of the current step
  Tensor idle;          // (F) i64, rows since the latent last fired
  Tensor fired_total;   // (F) i64
  Tensor step_l0;       // (1) f64, sum of l0 over the rows of the last step
  // What the log wants, f64, one tensor: the rest are its parts.
  Tensor log;                             // (kLatentStatistics + 4 + d)
  Tensor latents_summary;                 // (kLatentStatistics): see kernels/statistics.h
  Tensor sums;                            // (4 + d): sums since they were last read
  Tensor sum_error, sum_l0, sum_penalty;  // (1)
  Tensor sum_x2, sum_x;                   // (1), (d)

  SaeState(Arena& arena, int64_t width, int64_t latents, DType precision);

  // By name, what it takes to go on in another process: all but the bf16 copies, and what a step sets itself.
  std::vector<std::pair<std::string, Tensor>> persistent() const;

  const LatentTensors& p() const { return latents.p; }
  int64_t width() const { return latents.p.width(); }
  int64_t latent_count() const { return latents.p.latents(); }
  DType precision() const { return latents.W_enc16 ? DType::kBF16 : DType::kF32; }
};

// The weights of some latents as the products take them: the bf16 copies where there are any.
inline Tensor encoder(const LatentState& s) { return s.W_enc16 ? s.W_enc16 : s.p.W_enc; }
inline Tensor decoder(const LatentState& s) { return s.W_dec16 ? s.W_dec16 : s.p.W_dec; }

}  // namespace gsae
