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

double Recipe::target_l0_at(int64_t step) const {
  if (step >= l0_warmup || first_l0 <= 0) return target_l0;
  return first_l0 * std::pow(target_l0 / first_l0, double(step) / double(l0_warmup));
}

Recipe preset_recipe(const std::string& preset, int64_t steps, int64_t batch, int64_t width) {
  Recipe r;
  r.preset = preset;
  r.steps = steps;
  r.batch = batch;
  r.revive_window = std::min<int64_t>(2'500'000, std::max(steps * batch / 20, batch));
  if (preset == "default") {
    // A sign-like step of Adam moves a latent's pre-activation by up to lr * |x|_1, about lr * sqrt(d); and a long
    // run can afford smaller steps. 3e-3 was chosen on the demo's runs of 500 steps at d = 192; the exponents are a
    // rule that leads from there to about Gemma Scope's rate for its long runs, not measured: docs/recipe.md.
    r.lr = 3e-3 * std::sqrt(192.0 / double(width)) * std::cbrt(std::min(1.0, 500.0 / double(steps)));
    r.lr_warmup = std::min<int64_t>(1000, steps / 20);
    r.lr_decay = 0.7;
    r.beta2 = 0.95;
    r.decoder_rate = 3;
    r.threshold_rate = 0.5;
    r.lambda_warmup = 0;
    r.l0_warmup = steps * 2 / 5;  // so that the L0 has settled by the last third
    r.bandwidth = 0.003;
    r.start = Recipe::Start::kData;
    r.start_l0 = 2;
  } else if (preset == "gemma-scope" || preset == "gemma-scope-2") {
    r.penalty = preset == "gemma-scope" ? Recipe::Penalty::kL0 : Recipe::Penalty::kQuadratic;
    r.lr_warmup = std::min<int64_t>(1000, steps / 10);
    r.lambda_warmup = std::min<int64_t>(preset == "gemma-scope" ? 10000 : 50000, steps / 5);
  } else {
    throw Error(fmt::format("unknown preset '{}': must be default, gemma-scope or gemma-scope-2", preset));
  }
  return r;
}

// Where more latents are active than there are dimensions to speak of, a large rate turns most pre-activations negative
// within the first hundred steps: the L0 falls below what any threshold could give, and the FVU stays a tenth higher.
// And the rarer each latent is in a batch, the noisier are its gradient's signs: of 16k latents at an L0 of 128 the
// error went up tenfold for a while, and stayed a fifth higher.
double steady_rate(double l0, int64_t width, int64_t latents) {
  const double rare = std::pow(std::min(1.0, 4096 / double(latents)), 0.4);
  return std::min(1.0, std::sqrt(0.6 * double(width) / l0) * rare);
}

double first_l0(double target, int64_t latents) {
  return std::min(target, std::max(target * std::max(0.2, 2 * target / double(latents)), 16.0));
}

double threshold_gain(double l0, int64_t latents) {
  constexpr double kMost = 0.6;
  const double slope = std::log(double(latents) / l0);
  return slope > 0 ? std::min(kMost, 1 / slope) : kMost;
}

const char* name(Recipe::Penalty p) { return p == Recipe::Penalty::kL0 ? "l0" : "quadratic"; }
const char* name(Recipe::Start s) { return s == Recipe::Start::kRandom ? "random" : "data"; }

}  // namespace gsae
