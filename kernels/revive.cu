#include "kernels/launch.h"
#include "kernels/revive.h"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void revive_latents_kernel(float* theta, const int64_t* idle, const int64_t* clock, int64_t latents,
                                      ReviveOptions o) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < latents && *clock <= o.last && idle[i] >= o.window) theta[i] *= 1 - o.rate;
}

}  // namespace

void revive_latents(Context& ctx, Tensor theta, Tensor idle, Tensor clock, ReviveOptions o) {
  const Range range("revive_latents");
  const int64_t latents = theta.dim[0];
  launch(revive_latents_kernel, (latents + kThreads - 1) / kThreads, kThreads, 0, ctx.cuda().stream,
         theta.data<float>(), idle.data<int64_t>(), clock.data<int64_t>(), latents, o);
}

}  // namespace gsae::cuda
