#include "kernels/steer.h"

#include <vector>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void steer(Context& ctx, Tensor x, const SteeredLatents& s) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "steer: x {} must be f32 (n, d)", x);
  CHECKF(s.decoder.rank == 2 && s.decoder.dim[1] == x.dim[1] && s.decoder.dtype == DType::kF32,
         "steer: decoder {} must be f32 (k, {})", s.decoder, x.dim[1]);
  const int64_t k = s.decoder.dim[0];
  CHECKF(k <= kMostSteered, "steer: decoder {}: at most {} latents", s.decoder, kMostSteered);
  CHECKF(s.encoder.is({k, x.dim[1]}) && s.encoder.dtype == DType::kF32, "steer: encoder {} must match decoder {}",
         s.encoder, s.decoder);
  for (const Tensor& t : {s.bias, s.threshold, s.amount, s.gain})
    CHECKF(t.is({k}) && t.dtype == DType::kF32, "steer: bias, threshold, amount and gain must be f32[{}], one is {}", k,
           t);
  if (x.size() == 0 || k == 0) return;
  GSAE_DISPATCH(ctx.device(), steer(ctx, x, s));
}

void cpu::steer(Context&, Tensor x, const SteeredLatents& s) {
  const int64_t d = x.dim[1], k = s.decoder.dim[0];
  const float *decoder = s.decoder.data<float>(), *encoder = s.encoder.data<float>(), *bias = s.bias.data<float>(),
              *threshold = s.threshold.data<float>(), *amount = s.amount.data<float>(), *gain = s.gain.data<float>();
  parallel_for(x.dim[0], 4, [&](int64_t begin, int64_t end) {
    std::vector<float> by(static_cast<size_t>(k));
    for (int64_t r = begin; r < end; ++r) {
      float* row = x.data<float>() + r * d;
      for (int64_t i = 0; i < k; ++i) {
        by[i] = amount[i];
        if (gain[i] == 0) continue;
        const float* column = encoder + i * d;
        float z = 0;
#pragma omp simd reduction(+ : z)
        for (int64_t c = 0; c < d; ++c) z += row[c] * column[c];
        z += bias[i];
        by[i] -= gain[i] * (z > threshold[i] ? z : 0.0f);
      }
      for (int64_t i = 0; i < k; ++i) {
        const float factor = by[i], *direction = decoder + i * d;
#pragma omp simd
        for (int64_t c = 0; c < d; ++c) row[c] += factor * direction[c];
      }
    }
  });
}

}  // namespace gsae
