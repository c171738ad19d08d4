#pragma once

#include <cstdint>
#include <string>

#include "model/site.h"
#include "sae/recipe.h"
#include "tools/data_options.h"
#include "tools/given_options.h"
#include "tools/suite.h"

namespace gsae {

// The command line of `train`, as typed. Empty or 0: not given. --layer, --site, --width, --l0 and --lambda may be
// lists.
struct TrainOptions {
  CommonOptions common;
  DataOptions data;
  std::string layer = "20", site = "res", width = "16k", l0, lambda;
  std::string tokens, steps, batch = "4096", buffer, preset = "default", precision = "bf16", out;
  std::string lr, lr_warmup, lr_decay, sparsity_warmup, bandwidth, beta2, revive;
  std::string activations, init;  // files to train from
  std::string config;             // a TOML file of these options
  std::string model_batch, profile_steps, eval_loss_contexts;
  std::string passes = "1", sae_step = "auto", max_norm_multiple;
  std::string checkpoint_every = "auto", checkpoint_buffer = "full", resume;
  int64_t keep = 2;
  bool no_shuffle = false, eager = false;
  double input_scale = 0;
  int64_t log_every = 0;  // 0: chosen
  int64_t eval_contexts = 2048;

  bool place_typed = false;  // --layer or --site, which have defaults

  void add(CLI::App& command);
  void complete(CLI::App& command);  // after parsing: reads --config
  GivenOptions given;                // then: what was given
  bool saves_rows() const { return checkpoint_buffer == "full"; }
  DType sae_precision() const { return precision == "bf16" ? DType::kBF16 : DType::kF32; }
};

// What a run does, with every default filled in; needs no model.
struct TrainPlan {
  std::vector<SuiteMember> members;            // the SAEs; layers are those typed, whether or not the model has them
  int64_t steps = 0, batch = 0;                // of each
  int64_t tokens = 0;                          // steps * batch
  int64_t buffer = 0;                          // rows; 0: chosen with the memory plan
  int64_t model_batch = 0;                     // contexts of a forward pass; 0: chosen by the device
  double checkpoint_seconds = 0;               // between checkpoints; 0: not by time
  double checkpoint_share = 1;                 // of that time, at most, that the steps wait for one
  int64_t checkpoint_tokens = 0;               // likewise by tokens
  int64_t profile_begin = 0, profile_end = 0;  // steps [begin, end) that a profiler records
  int64_t log_every = 0;                       // steps
  double longest_row = 0;                      // in mean norms; longer ones are dropped; 0: none
  int64_t passes = 1;         // over the data, that the suite is spread over; 0: as few as memory allows
  int64_t loss_contexts = 0;  // of --eval-contexts, those whose LM losses are measured
};

// A UsageError says what an option may be: all of them are checked, those of the recipes too.
TrainPlan plan_training(const TrainOptions& options);

// How one SAE of the plan is trained; d: its inputs.
Recipe member_recipe(const TrainOptions& options, const TrainPlan& plan, const SuiteMember& member, int64_t d);

}  // namespace gsae
