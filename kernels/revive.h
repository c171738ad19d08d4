#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Lowers the thresholds of latents that have been silent for long, until they fire again: below its threshold a latent
// has no gradient that could bring it back.
//
//   theta[i] *= 1 - rate   where idle[i] >= window, as long as t <= last
//
//   theta (F) f32;  idle (F) i64, rows since the latent last fired;  clock (1) i64: t, the number of this step
//
// Memory-bound: F * 12 bytes, and 4 for each theta that is lowered.
struct ReviveOptions {
  int64_t window = 0;  // rows
  float rate = 0;      // of each step
  int64_t last = 0;    // step
};
void revive_latents(Context& ctx, Tensor theta, Tensor idle, Tensor clock, ReviveOptions options);

namespace cpu {
void revive_latents(Context& ctx, Tensor theta, Tensor idle, Tensor clock, ReviveOptions options);
}
namespace cuda {
void revive_latents(Context& ctx, Tensor theta, Tensor idle, Tensor clock, ReviveOptions options);
}

}  // namespace gsae
