#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Sums in f64, in a fixed order: the same bits with any number of threads.

// total[0] += sum_r x[r]
//   total (1) f64;  x (n) f32
void add_sum(Context& ctx, Tensor total, Tensor x);

// What a centred variance needs: sum[c] += sum_r x[r,c];  square[0] += sum_r |x[r]|^2
//   sum (d) f64;  square (1) f64;  x (n, d) f32
void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x);

// Counts for how many rows each latent has been silent, and clears the counts of one step:
//   idle[i] = fired[i] > 0 ? 0 : idle[i] + rows;  total[i] += fired[i];  fired[i] = 0
//   idle (F) i64;  total (F) i64;  fired (F) i32
void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows);

namespace cpu {
void add_sum(Context& ctx, Tensor total, Tensor x);
void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x);
void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows);
}  // namespace cpu
namespace cuda {
void add_sum(Context& ctx, Tensor total, Tensor x);
void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x);
void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows);
}  // namespace cuda

}  // namespace gsae
