#pragma once

#include <cstdint>
#include <string>

#include "model/site.h"
#include "sae/recipe.h"
#include "tools/data_options.h"

namespace gsae {

// The command line of `train`, as typed. Empty or 0: not given.
struct TrainOptions {
  CommonOptions common;
  DataOptions data;
  std::string layer = "20", site = "res", width = "16k", l0, lambda;
  std::string tokens, steps, batch = "4096", buffer, preset = "default", precision = "bf16", out;
  std::string lr, lr_warmup, lr_decay, sparsity_warmup, bandwidth, beta2;
  std::string activations, init;  // files to train from
  std::string config;             // a TOML file of these options
  std::string model_batch, profile_steps;
  bool no_shuffle = false, eager = false;
  double input_scale = 0;
  int64_t log_every = 10;
  int64_t eval_contexts = 2048;

  bool place_typed = false;  // --layer or --site, which have defaults

  void add(CLI::App& command);
  void complete(CLI::App& command);  // after parsing: reads --config
  DType sae_precision() const { return precision == "bf16" ? DType::kBF16 : DType::kF32; }
};

// What a run does, with every default filled in; needs no model.
struct TrainPlan {
  int64_t width = 0;  // of the SAE: F
  int64_t tokens = 0;
  int64_t buffer = 0;                          // rows; 0: chosen with the memory plan
  int64_t model_batch = 0;                     // contexts of a forward pass; 0: chosen by the device
  int64_t profile_begin = 0, profile_end = 0;  // steps [begin, end) that a profiler records
  Recipe recipe;
};

// A UsageError says what an option may be. d: the inputs of the SAE.
TrainPlan plan_training(const TrainOptions& options, int64_t d);

}  // namespace gsae
