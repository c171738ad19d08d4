#include "tools/step_cost.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

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

const char* StepTime::bound() const {
  const std::array<std::pair<double, const char*>, 4> parts{
      {{products, "products"}, {optimizer, "optimizer"}, {gathers, "gathers"}, {cached, "cache"}}};
  return std::max_element(parts.begin(), parts.end(), [](auto& a, auto& b) { return a.first < b.first; })->second;
}

StepTime dense_step_time(int64_t B, int64_t d, int64_t F, DType precision, const StepRoofs& roofs) {
  return {.products = double(B) * sae_flops_per_row(d, F) / roofs.products,
          .optimizer = step_bytes(B, d, F, precision).optimizer / roofs.memory};
}

StepTime sparse_step_time(int64_t rows, int64_t width, int64_t latents, double l0, DType precision,
                          const StepRoofs& roofs) {
  const double B = double(rows), d = double(width), F = double(latents), s = double(size_of(precision));
  const double entries = B * l0, touched = F * -std::expm1(-entries / F);
  const double copy = precision == DType::kBF16 ? s : 0;
  return {.sparse = true,
          .products = 2 * B * d * F / roofs.products,
          .optimizer = 2 * d * touched * (5 * sizeof(float) + copy) / roofs.memory,
          .gathers = entries * d * s / roofs.memory,
          .cached = (3 * entries * d * s + 2 * sizeof(float) * B * F) / roofs.cache};
}

StepTime step_time(int64_t B, int64_t d, int64_t F, double l0, DType precision, const StepRoofs& roofs) {
  const StepTime dense = dense_step_time(B, d, F, precision, roofs);
  const StepTime sparse = sparse_step_time(B, d, F, l0, precision, roofs);
  return sparse.total() < dense.total() ? sparse : dense;
}

}  // namespace gsae
