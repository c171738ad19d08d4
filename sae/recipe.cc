#include "sae/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/check.h"

namespace gsae {

double Recipe::lr_at(int64_t step) const {
  const double warm = lr_warmup > 0 ? std::min(double(step) / double(lr_warmup), 1.0) : 1.0;
  double rate = lr * (0.1 + 0.9 * 0.5 * (1 - std::cos(std::numbers::pi * warm)));
  const double left = double(steps - step) / double(steps);  // in (0, 1]
  if (lr_decay > 0 && left < lr_decay) rate *= left / lr_decay;
  return rate;
}

double Recipe::lambda_scale_at(int64_t step) const {
  return lambda_warmup > 0 ? std::min(double(step) / double(lambda_warmup), 1.0) : 1.0;
}

const char* name(Recipe::Penalty p) { return p == Recipe::Penalty::kL0 ? "l0" : "quadratic"; }
const char* name(Recipe::Start s) { return s == Recipe::Start::kRandom ? "random" : "data"; }

}  // namespace gsae
