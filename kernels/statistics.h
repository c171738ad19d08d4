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

// A summary of the latents, for the log: how many have been silent for `window` rows or more, and the thresholds.
// A threshold that is not a number shows in the mean; the lowest and the highest are those of the others.
//   out (4) f64: see LatentStatistic;  idle (F) i64;  theta (F) f32
enum LatentStatistic : int { kDeadLatents, kMeanThreshold, kLowestThreshold, kHighestThreshold, kLatentStatistics };
void summarise_latents(Context& ctx, Tensor out, Tensor idle, Tensor theta, int64_t window);

namespace cpu {
void add_sum(Context& ctx, Tensor total, Tensor x);
void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x);
void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows);
void summarise_latents(Context& ctx, Tensor out, Tensor idle, Tensor theta, int64_t window);
}  // namespace cpu
namespace cuda {
void add_sum(Context& ctx, Tensor total, Tensor x);
void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x);
void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows);
void summarise_latents(Context& ctx, Tensor out, Tensor idle, Tensor theta, int64_t window);
}  // namespace cuda

}  // namespace gsae
