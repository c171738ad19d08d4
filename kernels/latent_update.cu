#include "kernels/latent_update.h"

#include "kernels/latent_update.cuh"

namespace gsae::cuda {
namespace {

// Gradients of every latent.
struct Dense {
  const float *W_enc, *W_dec, *b_enc, *threshold;

  explicit Dense(const LatentTensors& g)
      : W_enc(g.W_enc.data<float>()),
        W_dec(g.W_dec.data<float>()),
        b_enc(g.b_enc.data<float>()),
        threshold(g.threshold.data<float>()) {}

  __device__ bool has(int64_t) const { return true; }
  __device__ float b(int64_t i) const { return b_enc[i]; }
  __device__ float theta(int64_t i) const { return threshold[i]; }
  template <int kVectors, int kWide>
  __device__ void rows(float (&enc)[kVectors][kWide], float (&dec)[kVectors][kWide], int64_t i, int column, int step,
                       int d) const {
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const int c = column + k * step;
#pragma unroll
      for (int j = 0; j < kWide; ++j) enc[k][j] = dec[k][j] = 0;
      if (c >= d) continue;
      load_row(enc[k], W_enc + i * d + c);
      load_row(dec[k], W_dec + i * d + c);
    }
  }
};

}  // namespace

void update_latents(Context& ctx, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                    LatentUpdateOptions o) {
  const Range range("update_latents");
  launch_update_latents(ctx, LatentPointers(s, rates, clock, o), Dense(g), s.p.latents(), s.p.width(), 1);
}

}  // namespace gsae::cuda
