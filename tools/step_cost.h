#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace gsae {

// What an SAE's training step has to do, from its shapes: what its time is held against. B rows, d inputs, F
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

// Seconds of a step by what takes them, one after the other; at the roofs, each part at its own.
struct StepTime {
  bool sparse = false;
  double products = 0;   // FLOP at the peak
  double optimizer = 0;  // bytes of parameters and second moments, from and to memory
  double gathers = 0;    // rows that are fetched from memory entry by entry
  double cached = 0;     // and what comes from a cache
  double total() const { return products + optimizer + gathers + cached; }
  const char* bound() const;  // the largest: "products", "optimizer", "gathers", "cache"
};

// FLOP/s and bytes/s.
struct StepRoofs {
  double products = 0, memory = 0, cache = 0;
};

// That of step_roof_seconds.
StepTime dense_step_time(int64_t B, int64_t d, int64_t F, DType precision, const StepRoofs& roofs);

// The exactly sparse step, E = B l0 entries:
//   products   2 B d F FLOP: the encoder's
//   cached     8 B F bytes: a tile of pre-activations, written and read
//   gathers    E d s bytes: a row of W_dec for each entry, the first time
//   cached     3 E d s bytes: that row again, and the rows of dx and of x - b_dec
//   optimizer  2 d V (20 + (s == 2 ? 2 : 0)) bytes, V = F (1 - exp(-E / F)): latents with an entry, if entries fall on
//              latents at random; real ones are less even, so fewer are touched
StepTime sparse_step_time(int64_t B, int64_t d, int64_t F, double l0, DType precision, const StepRoofs& roofs);

// The cheaper of the two.
StepTime step_time(int64_t B, int64_t d, int64_t F, double l0, DType precision, const StepRoofs& roofs);

}  // namespace gsae
