#pragma once

#include <cstdint>
#include <string>

namespace gsae {

// How an SAE is trained: section 4 of docs/design.md. Resolved before the run and written to its
// config.json; every number here is one that was used.
struct Recipe {
  enum class Penalty { kL0, kQuadratic };
  enum class Start { kRandom, kData };

  std::string preset = "default";
  int64_t batch = 4096;  // rows of a step
  int64_t steps = 0;

  // Adam with beta1 = 0
  double lr = 7e-5;
  int64_t lr_warmup = 1000;  // steps: 0.1 + 0.9 (1 - cos(pi s / warmup)) / 2
  double lr_decay = 0;       // the last fraction of the run falls linearly to zero
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double decoder_rate = 1, threshold_rate = 1;  // multiply the learning rate of W_dec and of theta

  // sparsity
  Penalty penalty = Penalty::kL0;
  double lambda = 0;        // given, or where the controller starts; 0: it finds where
  double target_l0 = 0;     // 0: none, lambda is the plain recipe
  double first_l0 = 0;      // the controller's target at the first step (0: target_l0),
  int64_t l0_warmup = 0;    // from which it rises by equal factors to target_l0 within so many steps
  bool controller = false;  // lambda and the thresholds follow the measured L0: see kernels/sparsity.h
  double integral_gain = 0.1, proportional_gain = 2, threshold_gain = 0.3;
  int64_t lambda_warmup = 10000;  // steps, linear
  double bandwidth = 0.001;

  // revival: thresholds of latents that have been silent for so many rows fall by this rate in every step, but for the
  // last fifth of the run. 0: none, as in every preset.
  double revive_rate = 0;
  int64_t revive_window = 0;

  // start
  Start start = Start::kRandom;
  double threshold = 0.001;  // of a random start
  double start_l0 = 0;       // of a start from data: the L0 that the first threshold leaves

  uint64_t seed = 0;
  bool tf32 = false;  // the operands of f32 products are rounded to tf32, for tensor cores: GPUs only

  double lr_at(int64_t step) const;
  double lambda_scale_at(int64_t step) const;  // min(step / lambda_warmup, 1)
  double target_l0_at(int64_t step) const;     // first_l0 (target_l0 / first_l0)^min(step / l0_warmup, 1)
};

// The settings of a preset for a run of `steps` steps of an SAE with `width` inputs.
// Warm-ups shrink for runs too short to hold them. Presets: default, gemma-scope, gemma-scope-2; an Error
// names them otherwise.
Recipe preset_recipe(const std::string& preset, int64_t steps, int64_t batch, int64_t width);

// What the default preset's learning rate is multiplied by for an SAE of so many latents, so many of them active, in
// `width` dimensions: 1 where they are few.
double steady_rate(double l0, int64_t width, int64_t latents);

// Where the default preset's target begins: at a fifth of it, or, where it is more than a tenth of the latents, at
// twice that share of it (thresholds at zero leave no more than about half of them active, and the rest takes the
// weights long), but not below 16. An SAE that starts sparser than it will end finds directions that explain more, each
// for itself, and keeps them.
double first_l0(double target, int64_t latents);

// By how much the logarithm of all thresholds may follow that of the L0 in one step. Where pre-activations have an
// exponential tail, log L0 changes by -log(latents / L0) times as much, and a loop that answers an error by more than
// twice its size swings; this one answers by its size.
double threshold_gain(double l0, int64_t latents);

const char* name(Recipe::Penalty p);
const char* name(Recipe::Start s);

}  // namespace gsae
