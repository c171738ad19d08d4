#include "tools/train_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace gsae {

void TrainOptions::add(CLI::App& command) {
  common.add(command);
  data.add(command);
  command.add_option("--layer", layer, "whose activations are trained on")->capture_default_str();
  command.add_option("--site", site, "res, mlp, att (also pre, attn_out, mlp_in)")->capture_default_str();
  command.add_option("--width", width, "number of latents: 4096, 16k, 1m")->capture_default_str();
  command.add_option("--l0", l0, "mean number of active latents to reach (default: 80)");
  command.add_option("--lambda", lambda, "plain sparsity coefficient, instead of --l0")->excludes("--l0");
  command.add_option("--tokens", tokens, "to train on: 2M, 500M (default: 500M, 10M of the bundled corpus)");
  command.add_option("--steps", steps, "number of steps, instead of --tokens")->excludes("--tokens");
  command.add_option("--batch", batch, "activations per step")->capture_default_str();
  command.add_option("--buffer", buffer, "activations in the shuffle buffer (default: 1M, less for short runs)");
  command.add_option("--preset", preset, "default, gemma-scope or gemma-scope-2")->capture_default_str();
  command.add_option("--precision", precision, "of the SAE's products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--lr", lr, "peak learning rate (default: the preset's)");
  command.add_option("--lr-warmup", lr_warmup, "steps (default: the preset's)");
  command.add_option("--lr-decay", lr_decay, "last fraction of the run over which the rate falls to zero");
  command.add_option("--beta2", beta2, "of Adam (default: the preset's)");
  command.add_option("--sparsity-warmup", sparsity_warmup,
                     "steps over which the penalty rises (default: the preset's)");
  command.add_option("--bandwidth", bandwidth, "of the threshold's estimator (default: the preset's)");
  command.add_option("--out", out, "folder of the run (default: runs/MODEL/...)");
  command.add_option("--activations", activations, "train from this .safetensors instead of a model");
  command.add_option("--init", init, "start from these parameters (.safetensors, normalised units)");
  command.add_flag("--no-shuffle", no_shuffle, "train in the order of the data");
  command.add_option("--input-scale", input_scale, "C, instead of calibrating it")->check(CLI::NonNegativeNumber);
  command.add_option("--log-every", log_every, "steps per line of train.jsonl")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--eval-contexts", eval_contexts, "held-out contexts of the evaluation at the end; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.set_config("--config", "", "read these options from a TOML file");
}

namespace {

double parse_number(const char* option, const std::string& text, double low, double high) {
  size_t used = 0;
  double value = NAN;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {}
  if (used != text.size() || !(value >= low && value <= high))
    throw UsageError(fmt::format("{} {}: must be a number from {:g} to {:g}", option, text, low, high));
  return value;
}

int64_t parse_steps(const char* option, const std::string& text, int64_t low) {
  const int64_t n = parse_count(text);
  if (n < low) throw UsageError(fmt::format("{} {}: must be at least {}", option, text, low));
  return n;
}

}  // namespace

TrainPlan plan_training(const TrainOptions& o, int64_t d) {
  TrainPlan plan;
  constexpr int64_t kWidest = int64_t{1} << 24;
  plan.width = parse_width(o.width);
  if (plan.width < 1 || plan.width > kWidest)
    throw UsageError(fmt::format("--width {}: must be from 1 to {} latents", o.width, format_width(kWidest)));
  const int64_t batch = parse_steps("--batch", o.batch, 1);
  const bool bundled = o.data.data.empty() && o.activations.empty();
  int64_t steps = 0;
  if (!o.steps.empty()) {
    steps = parse_steps("--steps", o.steps, 1);
  } else {
    const int64_t tokens = parse_steps("--tokens", o.tokens.empty() ? (bundled ? "10M" : "500M") : o.tokens, 1);
    if (tokens < batch) throw UsageError(fmt::format("--tokens {}: must be at least one batch ({})", o.tokens, batch));
    steps = tokens / batch;
  }
  plan.tokens = steps * batch;

  Recipe& r = plan.recipe;
  try {
    r = preset_recipe(o.preset, steps, batch, d);
  } catch (const Error& e) {
    throw UsageError(fmt::format("--preset {}: {}", o.preset, e.what()));
  }
  r.seed = o.common.seed;
  if (!o.lr.empty()) r.lr = parse_number("--lr", o.lr, 0, 10);
  if (!o.lr_warmup.empty()) r.lr_warmup = parse_steps("--lr-warmup", o.lr_warmup, 0);
  if (!o.lr_decay.empty()) r.lr_decay = parse_number("--lr-decay", o.lr_decay, 0, 1);
  if (!o.beta2.empty()) r.beta2 = parse_number("--beta2", o.beta2, 0, 0.999999);
  if (!o.sparsity_warmup.empty()) r.lambda_warmup = parse_steps("--sparsity-warmup", o.sparsity_warmup, 0);
  if (!o.bandwidth.empty()) r.bandwidth = parse_number("--bandwidth", o.bandwidth, 1e-9, 100);

  const bool quadratic = r.penalty == Recipe::Penalty::kQuadratic;
  if (!o.lambda.empty()) r.lambda = parse_number("--lambda", o.lambda, 0, 1e9);
  if (o.lambda.empty() || quadratic) {
    r.target_l0 = parse_number("--l0", o.l0.empty() ? "80" : o.l0, 0.1, double(plan.width));
    r.controller = o.lambda.empty();
    r.start_l0 = std::min(r.start_l0 * r.target_l0, 0.5 * double(plan.width));
  }
  return plan;
}

nlohmann::json to_json(const Recipe& r) {
  return {{"preset", r.preset},
          {"batch", r.batch},
          {"steps", r.steps},
          {"lr", r.lr},
          {"lr_warmup_steps", r.lr_warmup},
          {"lr_decay_fraction", r.lr_decay},
          {"beta1", 0.0},
          {"beta2", r.beta2},
          {"adam_epsilon", r.epsilon},
          {"decoder_rate", r.decoder_rate},
          {"threshold_rate", r.threshold_rate},
          {"penalty", name(r.penalty)},
          {"lambda", r.lambda},
          {"lambda_warmup_steps", r.lambda_warmup},
          {"target_l0", r.target_l0},
          {"controller", r.controller},
          {"integral_gain", r.integral_gain},
          {"proportional_gain", r.proportional_gain},
          {"bandwidth", r.bandwidth},
          {"start", name(r.start)},
          {"threshold", r.threshold},
          {"start_l0", r.start_l0},
          {"seed", r.seed}};
}

}  // namespace gsae
