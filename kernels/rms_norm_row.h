#pragma once

// One row of the norm, for the CPU code of rms_norm and rms_norm_residual: both give the same bits.

#include <cmath>
#include <cstdint>

#include "kernels/bf16.h"

namespace gsae {

// 1 / sqrt(mean(x^2) + eps). In f64, where neither the number of lanes nor the width of the row shows.
inline float inverse_rms(const float* x, int64_t d, float eps) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < d; ++c) sum += double(x[c]) * x[c];
  return static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(d) + eps));
}

// out = x * inv_rms * (1 + weight); out may be x
template <class Out, class W> void scale_row(Out* out, const float* x, const W* weight, float inv_rms, int64_t d) {
#pragma omp simd
  for (int64_t c = 0; c < d; ++c) store(out + c, x[c] * inv_rms * (1.0f + to_float(weight[c])));
}

}  // namespace gsae
