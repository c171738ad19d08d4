#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/steer.h"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

struct Operands {
  const float *decoder, *encoder, *bias, *threshold, *amount, *gain;
  int latents;
};

// One block per row: first how far along each latent, then all at once.
__global__ void __launch_bounds__(kThreads) steer_kernel(float* x, Operands s, int64_t d) {
  float* by = dynamic_shared<float>();
  float* row = x + int64_t(blockIdx.x) * d;
  for (int i = 0; i < s.latents; ++i) {
    const float gain = s.gain[i];
    float f = 0;
    if (gain != 0) {  // for all threads alike
      float z = 0;
      for (int64_t c = threadIdx.x; c < d; c += kThreads) z = fmaf(row[c], s.encoder[i * d + c], z);
      z = block_sum<kWarps>(z) + s.bias[i];
      f = z > s.threshold[i] ? z : 0.0f;
    }
    if (threadIdx.x == 0) by[i] = s.amount[i] - gain * f;
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < d; c += kThreads) {
    float y = row[c];
    for (int i = 0; i < s.latents; ++i) y = fmaf(by[i], s.decoder[i * d + c], y);
    row[c] = y;
  }
}

}  // namespace

void steer(Context& ctx, Tensor x, const SteeredLatents& s) {
  const Range range("steer");
  const int64_t latents = s.decoder.dim[0];
  launch(steer_kernel, x.dim[0], kThreads, static_cast<size_t>(latents) * sizeof(float), ctx.cuda().stream,
         x.data<float>(),
         Operands{s.decoder.data<float>(), s.encoder.data<float>(), s.bias.data<float>(), s.threshold.data<float>(),
                  s.amount.data<float>(), s.gain.data<float>(), static_cast<int>(latents)},
         x.dim[1]);
}

}  // namespace gsae::cuda
