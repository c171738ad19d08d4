#include "tools/step_cost.h"

namespace gsae {

double sae_flops_per_row(int64_t d, int64_t F) { return 10.0 * double(d) * double(F); }

StepBytes step_bytes(int64_t rows, int64_t width, int64_t latents, DType precision) {
  const double B = double(rows), d = double(width), F = double(latents), s = double(size_of(precision));
  const double copy = precision == DType::kBF16 ? s : 0;
  constexpr double kAdam = 5 * sizeof(float), kCounters = 2 * (2 * sizeof(int64_t) + sizeof(int32_t));
  return {.optimizer = 2 * d * F * (kAdam + copy) + (2 * F + d) * kAdam,
          .elementwise = B * F * (12 + 2 * s) + B * d * (24 + 3 * s) + 4 * d * F + F * kCounters};
}

double step_roof_seconds(int64_t B, int64_t d, int64_t F, DType precision, double peak, double bandwidth) {
  return double(B) * sae_flops_per_row(d, F) / peak + step_bytes(B, d, F, precision).optimizer / bandwidth;
}

}  // namespace gsae
