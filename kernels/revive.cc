#include "kernels/revive.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void revive_latents(Context& ctx, Tensor theta, Tensor idle, Tensor clock, ReviveOptions o) {
  CHECKF(theta.rank == 1 && theta.dtype == DType::kF32 && idle.is({theta.dim[0]}) && idle.dtype == DType::kI64,
         "revive_latents: theta {} and idle {} must be (F), f32 and i64", theta, idle);
  CHECKF(clock.is({1}) && clock.dtype == DType::kI64, "revive_latents: clock {} must be i64[1]", clock);
  if (theta.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), revive_latents(ctx, theta, idle, clock, o));
}

void cpu::revive_latents(Context&, Tensor theta, Tensor idle, Tensor clock, ReviveOptions o) {
  if (*clock.data<int64_t>() > o.last) return;
  float* t = theta.data<float>();
  const int64_t* silent = idle.data<int64_t>();
  const float factor = 1 - o.rate;
  parallel_for(theta.dim[0], 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (silent[i] >= o.window) t[i] *= factor;
  });
}

}  // namespace gsae
