#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace gsae {

// What a dense SAE's training step has to do, from its shapes: what its time is held against. B rows, d inputs, F
// latents; s bytes an operand of the products (bf16: 2, f32: 4).

// Five products of 2 d F FLOP: encode, decode, the gradient of the latents, and those of both weights.
double sae_flops_per_row(int64_t d, int64_t F);

// Bytes that the rest of a step moves, the products' own operands left out.
struct StepBytes {
  // Adam: reads p, v and g, writes p and v in f32, and writes the bf16 copy of a matrix where the products want one:
  //   2 d F (20 + (s == 2 ? 2 : 0)) + (2 F + d) 20
  // No arrangement of the step saves these.
  double optimizer = 0;

  // What runs over (B, F), (B, d), the weights and the counters by itself, and what fusion could save a part of:
  //   JumpReLU and its backward         B F (4 + s) + B F (8 + s)
  //   rows from the buffer              B d (s + 4)
  //   x - b_dec                         B d (4 + s)
  //   error and its gradient            B d (12 + s)       reads x_hat and x, writes e and dx
  //   moments for the log               B d 4
  //   b_dec's pull, W_enc (sum of dz)   4 d F
  //   silence of the latents            F (2 * 20)         idle, total: i64; fired: i32; read and written
  double elementwise = 0;
};
StepBytes step_bytes(int64_t B, int64_t d, int64_t F, DType precision);

// Seconds that a step cannot beat: its FLOP at the peak of the products, and the optimizer's bytes at the bandwidth of
// a copy, one after the other: the update needs the gradients of all rows.
double step_roof_seconds(int64_t B, int64_t d, int64_t F, DType precision, double peak, double bandwidth);

}  // namespace gsae
