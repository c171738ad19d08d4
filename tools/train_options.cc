#include "tools/train_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/config_file.h"

namespace gsae {

void TrainOptions::add(CLI::App& command) {
  common.add(command);
  data.add(command);
  command.add_option("--layer", layer, "whose activations are trained on")->capture_default_str();
  command.add_option("--site", site, "res, mlp, att (also pre, attn_out, mlp_in)")->capture_default_str();
  command.add_option("--width", width, "number of latents: 4096, 16k, 1m")->capture_default_str();
  command.add_option("--l0", l0, "mean number of active latents to reach (default: 80)");
  command.add_option("--lambda", lambda, "plain sparsity coefficient, instead of --l0 (with it: gemma-scope-2)");
  command.add_option("--tokens", tokens, "to train on: 2M, 500M (default: 500M, 10M of the bundled corpus)");
  command.add_option("--steps", steps, "number of steps, instead of --tokens")->excludes("--tokens");
  command.add_option("--batch", batch, "activations per step")->capture_default_str();
  command.add_option("--buffer", buffer, "activations in the shuffle buffer (default: 1M, less for short runs)");
  command.add_option("--preset", preset, "default, gemma-scope or gemma-scope-2")->capture_default_str();
  command.add_option("--precision", precision, "of the SAE's products: bf16, f32, or tf32 (GPUs)")
      ->check(CLI::IsMember({"bf16", "tf32", "f32"}))
      ->capture_default_str();
  command.add_option("--lr", lr, "peak learning rate (default: the preset's)");
  command.add_option("--lr-warmup", lr_warmup, "steps (default: the preset's)");
  command.add_option("--lr-decay", lr_decay, "last fraction of the run over which the rate falls to zero");
  command.add_option("--beta2", beta2, "of Adam (default: the preset's)");
  command.add_option("--sparsity-warmup", sparsity_warmup,
                     "steps over which the penalty rises (default: the preset's)");
  command.add_option("--bandwidth", bandwidth, "of the threshold's estimator (default: the preset's)");
  command.add_option("--model-batch", model_batch,
                     "contexts of one forward pass (default: about 1k tokens; 8k on GPUs)");
  command.add_flag("--eager", eager, "run every op by itself instead of CUDA graphs; the same bits");
  command.add_option("--profile-steps", profile_steps, "A:B, the steps that nsys and ncu record, A to B - 1");
  command.add_option("--out", out, "folder of the run (default: runs/MODEL/...)");
  command.add_option("--activations", activations, "train from this .safetensors instead of a model")
      ->excludes("--model")
      ->excludes("--data");
  command.add_option("--init", init, "start from these parameters (.safetensors, normalised units)");
  command.add_flag("--no-shuffle", no_shuffle, "train in the order of the data");
  command.add_option("--input-scale", input_scale, "C, instead of calibrating it (0: calibrate)");
  command.add_option("--log-every", log_every, "steps per line of train.jsonl")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--eval-contexts", eval_contexts, "held-out contexts of the evaluation at the end; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--config", config,
                     "read these options from a TOML file (width = \"16k\"); the command line wins");
}

void TrainOptions::complete(CLI::App& command) {
  if (!config.empty()) read_config_file(command, config);
  place_typed = command.count("--layer") + command.count("--site") > 0;
}

namespace {

constexpr int64_t kMostSteps = int64_t{1} << 50;

}  // namespace

TrainPlan plan_training(const TrainOptions& o, int64_t d) {
  TrainPlan plan;
  if (!o.model_batch.empty()) plan.model_batch = parse_whole("--model-batch", o.model_batch, 1, 1 << 20);
  if (!o.profile_steps.empty()) {
    const size_t colon = o.profile_steps.find(':');
    if (colon == std::string::npos)
      throw UsageError(fmt::format("--profile-steps {}: must be A:B, two steps", o.profile_steps));
    plan.profile_begin = parse_whole("--profile-steps", o.profile_steps.substr(0, colon), 0, kMostSteps);
    plan.profile_end =
        parse_whole("--profile-steps", o.profile_steps.substr(colon + 1), plan.profile_begin + 1, kMostSteps);
  }
  constexpr int64_t kDefaultL0 = 80, kWidest = int64_t{1} << 24, kLargestBatch = int64_t{1} << 24,
                    kMostTokens = 1'000'000'000'000'000;
  plan.width = parse_width(o.width);
  if (plan.width < 1 || plan.width > kWidest)
    throw UsageError(fmt::format("--width {}: must be from 1 to {} latents", o.width, format_width(kWidest)));
  const int64_t batch = parse_whole("--batch", o.batch, 1, kLargestBatch);
  int64_t steps = 0;
  if (!o.steps.empty()) {
    steps = parse_whole("--steps", o.steps, 1, kMostTokens / batch);
  } else {
    const bool bundled = o.data.data.empty() && o.activations.empty();
    const std::string text = !o.tokens.empty() ? o.tokens : bundled ? "10M" : "500M";
    const int64_t tokens = parse_whole("--tokens", text, 1, kMostTokens);
    if (tokens < batch) throw UsageError(fmt::format("--tokens {}: must be at least one batch ({})", text, batch));
    steps = tokens / batch;
  }
  if (plan.profile_end > 0 && plan.profile_begin >= steps)
    throw UsageError(fmt::format("--profile-steps {}: this run has the steps 0 to {}", o.profile_steps, steps - 1));
  plan.tokens = steps * batch;
  if (!o.buffer.empty()) plan.buffer = parse_whole("--buffer", o.buffer, 1, std::numeric_limits<int32_t>::max());
  if (!(o.input_scale >= 0 && std::isfinite(o.input_scale)))
    throw UsageError(fmt::format("--input-scale {}: must be a positive number, or 0 to calibrate it", o.input_scale));

  Recipe& r = plan.recipe;
  try {
    r = preset_recipe(o.preset, steps, batch, d);
  } catch (const Error& e) {
    throw UsageError(fmt::format("--preset {}: {}", o.preset, e.what()));
  }
  r.seed = o.common.seed;
  r.tf32 = o.precision == "tf32";
  if (!o.lr.empty()) r.lr = parse_number("--lr", o.lr, 0, 10);
  if (!o.lr_warmup.empty()) r.lr_warmup = parse_whole("--lr-warmup", o.lr_warmup, 0, kMostTokens);
  if (!o.lr_decay.empty()) r.lr_decay = parse_number("--lr-decay", o.lr_decay, 0, 1);
  if (!o.beta2.empty()) r.beta2 = parse_number("--beta2", o.beta2, 0, 0.999999);
  if (!o.sparsity_warmup.empty()) r.lambda_warmup = parse_whole("--sparsity-warmup", o.sparsity_warmup, 0, kMostTokens);
  if (!o.bandwidth.empty()) r.bandwidth = parse_number("--bandwidth", o.bandwidth, 1e-9, 100);

  // The quadratic penalty has both: its target, and the coefficient that a controller would else move.
  const bool quadratic = r.penalty == Recipe::Penalty::kQuadratic;
  if (!o.lambda.empty() && !o.l0.empty() && !quadratic)
    throw UsageError(
        "--lambda and --l0: give one of them; --lambda is the plain coefficient, and --l0 has it follow "
        "from the sparsity asked for (--preset gemma-scope-2 has a use for both)");
  if (!o.lambda.empty()) r.lambda = parse_number("--lambda", o.lambda, 0, 1e9);
  const bool targeted = o.lambda.empty() || quadratic;
  if (targeted && o.l0.empty() && plan.width <= kDefaultL0)
    throw UsageError(fmt::format("--width {}: as few latents need an --l0 (the default is {})", o.width, kDefaultL0));
  const double target = o.l0.empty() ? double(kDefaultL0) : parse_number("--l0", o.l0, 0.1, double(plan.width));
  r.start_l0 = std::min(r.start_l0 * target, 0.5 * double(plan.width));
  if (targeted) {
    r.target_l0 = target;
    r.controller = o.lambda.empty();
  }
  return plan;
}

}  // namespace gsae
