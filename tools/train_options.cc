#include "tools/train_options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tools/config_file.h"
#include "tools/run_file.h"

namespace gsae {

void TrainOptions::add(CLI::App& command) {
  common.add(command);
  data.add(command);
  command.add_option("--layer", layer, "whose activations are trained on: 20, or a list: 0-25, 3,7,10-12")
      ->capture_default_str();
  command.add_option("--site", site, "res, mlp, att (also pre, attn_out, mlp_in), or a list: res,mlp")
      ->capture_default_str();
  command.add_option("--width", width, "number of latents: 4096, 16k, 1m, or a list: 16k,65k")->capture_default_str();
  command.add_option("--l0", l0, "mean number of active latents to reach (default: 80), or a list: 40,80,160");
  command.add_option("--lambda", lambda,
                     "plain sparsity coefficient, or a list, instead of --l0 (with it: gemma-scope-2)");
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
                     "steps over which the penalty rises, or with the default preset's --l0 the target (default: "
                     "the preset's)");
  command.add_option("--bandwidth", bandwidth, "of the threshold's estimator (default: the preset's)");
  command.add_option(
      "--revive", revive,
      "rate by which thresholds of silent latents fall in a step, until they fire (0.02; default: 0, none)");
  command.add_option("--max-norm-multiple", max_norm_multiple,
                     "drop activations longer than so many times the mean norm (default: none; those of 1e4 are "
                     "counted)");
  command.add_option("--model-batch", model_batch,
                     "contexts of one forward pass (default: about 1k tokens; 8k on GPUs)");
  command.add_flag("--eager", eager, "run every op by itself instead of CUDA graphs; the same bits");
  command.add_option("--profile-steps", profile_steps, "A:B, the steps that nsys and ncu record, A to B - 1");
  command.add_option("--out", out, "folder of the run (default: runs/MODEL/...)");
  command
      .add_option("--checkpoint-every", checkpoint_every,
                  "time (10min, 90s, 2h) or tokens (5M) between checkpoints; 0: none; auto: 10min, or so much longer "
                  "that the steps wait for them 1 % of the time")
      ->capture_default_str();
  command
      .add_option("--checkpoint-buffer", checkpoint_buffer,
                  "full: checkpoints hold the buffer's rows; none: the tokens to compute them again from, which is "
                  "small, and exact in data rather than bits")
      ->check(CLI::IsMember({"full", "none"}))
      ->capture_default_str();
  command.add_option("--keep", keep, "how many of the last checkpoints are kept")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  command.add_option("--activations", activations, "train from this .safetensors instead of a model")
      ->excludes("--model")
      ->excludes("--data");
  command.add_option("--init", init, "start from these parameters (.safetensors, normalised units)");
  command.add_flag("--no-shuffle", no_shuffle, "train in the order of the data");
  command.add_option("--input-scale", input_scale, "C, instead of calibrating it (0: calibrate)");
  command
      .add_option("--log-every", log_every,
                  "steps per line of train.jsonl (default: 10, more where that would be over 50k lines)")
      ->check(CLI::PositiveNumber);
  command.add_option("--eval-contexts", eval_contexts, "held-out contexts of the evaluation at the end; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--eval-loss-contexts", eval_loss_contexts,
                     "of those, how many the LM losses are measured on (default: all; fewer for many SAEs)");
  command.add_option("--passes", passes, "over the data, that many SAEs are spread over: a number, or auto")
      ->capture_default_str();
  command
      .add_option("--sae-step", sae_step, "auto, dense or sparse: the same gradients, at a cost that follows F or L0")
      ->check(CLI::IsMember({"auto", "dense", "sparse"}))
      ->capture_default_str();
  command.add_option("--config", config,
                     "read these options from a TOML file (width = \"16k\"); the command line wins");
  command.add_option("--resume", resume, "folder of a run that was stopped: goes on from its last checkpoint")
      ->excludes("--out")
      ->excludes("--config");
}

void TrainOptions::complete(CLI::App& command) {
  if (!config.empty()) read_config_file(command, config);
  if (!resume.empty()) add_given(command, read_run_file(resume).given);
  given = given_options(command);
  place_typed = command.count("--layer") + command.count("--site") > 0;
}

namespace {

constexpr int64_t kDefaultL0 = 80, kWidest = int64_t{1} << 24, kLargestBatch = int64_t{1} << 24,
                  kMostTokens = 1'000'000'000'000'000, kMostSteps = int64_t{1} << 50;
constexpr int64_t kLogEvery = 10, kLogLines = 50'000;  // some 25 MB, which a report reads in a second

// Each element of a list, once.
template <class Parse> auto parse_list(const std::string& text, Parse&& parse) {
  std::vector<decltype(parse(text))> list;
  for (const std::string& element : split_list(text)) {
    const auto value = parse(element);
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
  }
  return list;
}

int64_t latents_of(const std::string& text) {
  const int64_t latents = parse_width(text);
  if (latents < 1 || latents > kWidest)
    throw UsageError(fmt::format("--width {}: must be from 1 to {} latents", text, format_width(kWidest)));
  return latents;
}

Recipe recipe_of_preset(const TrainOptions& o, const TrainPlan& plan, int64_t d) {
  try {
    return preset_recipe(o.preset, plan.steps, plan.batch, d);
  } catch (const Error& e) {
    throw UsageError(fmt::format("--preset {}: {}", o.preset, e.what()));
  }
}

SuiteLists parse_suite(const TrainOptions& o, bool quadratic) {
  SuiteLists lists;
  lists.layers = parse_layers(o.layer);
  lists.sites = parse_sites(o.site);
  lists.widths = parse_list(o.width, latents_of);
  // The quadratic penalty has both: its target, and the coefficient that a controller would else move.
  if (!o.lambda.empty() && !o.l0.empty() && !quadratic)
    throw UsageError(
        "--lambda and --l0: give one of them; --lambda is the plain coefficient, and --l0 has it follow "
        "from the sparsity asked for (--preset gemma-scope-2 has a use for both)");
  if (!o.lambda.empty())
    lists.lambdas =
        parse_list(o.lambda, [](const std::string& text) { return parse_number("--lambda", text, 0, 1e9); });
  if (!o.lambda.empty() && !quadratic) return lists;
  const int64_t narrowest = *std::min_element(lists.widths.begin(), lists.widths.end());
  if (o.l0.empty() && narrowest <= kDefaultL0)
    throw UsageError(fmt::format("--width {}: as few latents need an --l0 (the default is {})", o.width, kDefaultL0));
  if (o.l0.empty()) lists.l0s = {double(kDefaultL0)};
  else
    lists.l0s =
        parse_list(o.l0, [&](const std::string& text) { return parse_number("--l0", text, 0.1, double(narrowest)); });
  if (lists.l0s.size() > 1 && lists.lambdas.size() > 1)
    throw UsageError(
        fmt::format("--l0 {} --lambda {}: one of them may be a list, beside one value of the other", o.l0, o.lambda));
  return lists;
}

// What only makes sense for one place.
void check_places(const TrainOptions& o, const SuiteLists& lists) {
  const bool one_place = lists.layers.size() == 1 && lists.sites.size() == 1;
  if (!o.activations.empty() && !one_place)
    throw UsageError(fmt::format("--layer {} --site {}: must be one layer and one site: those that {} is of", o.layer,
                                 o.site, o.activations));
  if (!(o.input_scale >= 0 && std::isfinite(o.input_scale)))
    throw UsageError(fmt::format("--input-scale {}: must be a positive number, or 0 to calibrate it", o.input_scale));
  if (o.input_scale > 0 && !one_place)
    throw UsageError(
        fmt::format("--input-scale {}: is that of one layer's site; without it, each has its own", o.input_scale));
  if (!o.init.empty() && (!one_place || lists.widths.size() > 1))
    throw UsageError(fmt::format("--init {}: are the parameters of one --width at one --layer and --site", o.init));
}

// A forward pass for each SAE, and some for each place: many SAEs share out what one would take.
int64_t choose_loss_contexts(const TrainOptions& o, int64_t saes) {
  constexpr int64_t kPassesOfASuite = 2048, kFewest = 32;
  int64_t contexts = o.eval_contexts;
  if (!o.eval_loss_contexts.empty())
    contexts = parse_whole("--eval-loss-contexts", o.eval_loss_contexts, 0, kMostTokens);
  else if (saes > 1) contexts = std::max(kPassesOfASuite / saes, kFewest);
  return std::min(contexts, o.eval_contexts);
}

// "auto", "10min", "90s", "2h" or "5M" tokens
void parse_checkpoint_every(const std::string& text, TrainPlan& plan) {
  if (text == "auto") {
    plan.checkpoint_seconds = 600, plan.checkpoint_share = 0.01;
    return;
  }
  const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string unit = text.substr(digits), number = text.substr(0, digits);
  const double seconds = unit == "s" ? 1 : unit == "min" ? 60 : unit == "h" ? 3600 : 0;
  if (seconds > 0) plan.checkpoint_seconds = seconds * parse_number("--checkpoint-every", number, 1e-3, 1e6);
  else plan.checkpoint_tokens = parse_whole("--checkpoint-every", text, 0, kMostTokens);
}

}  // namespace

TrainPlan plan_training(const TrainOptions& o) {
  TrainPlan plan;
  parse_checkpoint_every(o.checkpoint_every, plan);
  if (!o.max_norm_multiple.empty())
    plan.longest_row = parse_number("--max-norm-multiple", o.max_norm_multiple, 1.5, 1e30);
  if (!o.model_batch.empty()) plan.model_batch = parse_whole("--model-batch", o.model_batch, 1, 1 << 20);
  if (!o.profile_steps.empty()) {
    const size_t colon = o.profile_steps.find(':');
    if (colon == std::string::npos)
      throw UsageError(fmt::format("--profile-steps {}: must be A:B, two steps", o.profile_steps));
    plan.profile_begin = parse_whole("--profile-steps", o.profile_steps.substr(0, colon), 0, kMostSteps);
    plan.profile_end =
        parse_whole("--profile-steps", o.profile_steps.substr(colon + 1), plan.profile_begin + 1, kMostSteps);
  }
  if (!o.saves_rows() && !o.activations.empty())
    throw UsageError("--checkpoint-buffer none: saved activations have no tokens to compute them again from");
  plan.batch = parse_whole("--batch", o.batch, 1, kLargestBatch);
  if (!o.steps.empty()) {
    plan.steps = parse_whole("--steps", o.steps, 1, kMostTokens / plan.batch);
  } else {
    const bool bundled = o.data.data.empty() && o.activations.empty();
    const std::string text = !o.tokens.empty() ? o.tokens : bundled ? "10M" : "500M";
    const int64_t tokens = parse_whole("--tokens", text, 1, kMostTokens);
    if (tokens < plan.batch)
      throw UsageError(fmt::format("--tokens {}: must be at least one batch ({})", text, plan.batch));
    plan.steps = tokens / plan.batch;
  }
  if (plan.profile_end > 0 && plan.profile_begin >= plan.steps)
    throw UsageError(
        fmt::format("--profile-steps {}: this run has the steps 0 to {}", o.profile_steps, plan.steps - 1));
  plan.tokens = plan.steps * plan.batch;
  if (!o.buffer.empty()) plan.buffer = parse_whole("--buffer", o.buffer, 1, std::numeric_limits<int32_t>::max());

  const SuiteLists lists = parse_suite(o, recipe_of_preset(o, plan, 1).penalty == Recipe::Penalty::kQuadratic);
  check_places(o, lists);
  plan.members = make_suite(lists);
  const auto saes = static_cast<int64_t>(plan.members.size());
  plan.log_every = o.log_every > 0 ? o.log_every : std::max(kLogEvery, (plan.steps * saes + kLogLines - 1) / kLogLines);
  plan.passes = o.passes == "auto" ? 0 : parse_whole("--passes", o.passes, 1, kMostSaes);
  if (plan.passes > saes)
    throw UsageError(fmt::format("--passes {}: must be auto, or at most one for each SAE, of which there {}", o.passes,
                                 saes == 1 ? "is 1" : fmt::format("are {}", saes)));
  plan.loss_contexts = choose_loss_contexts(o, saes);
  member_recipe(o, plan, plan.members[0], 1);  // what is typed of it is the same for all
  return plan;
}

Recipe member_recipe(const TrainOptions& o, const TrainPlan& plan, const SuiteMember& member, int64_t d) {
  Recipe r = recipe_of_preset(o, plan, d);
  r.seed = o.common.seed;
  r.tf32 = o.precision == "tf32";
  if (r.preset == "default" && member.l0 > 0) r.lr *= steady_rate(member.l0, d, member.latents);
  if (!o.lr.empty()) r.lr = parse_number("--lr", o.lr, 0, 10);
  if (!o.lr_warmup.empty()) r.lr_warmup = parse_whole("--lr-warmup", o.lr_warmup, 0, kMostTokens);
  if (!o.lr_decay.empty()) r.lr_decay = parse_number("--lr-decay", o.lr_decay, 0, 1);
  if (!o.beta2.empty()) r.beta2 = parse_number("--beta2", o.beta2, 0, 0.999999);
  if (!o.revive.empty()) r.revive_rate = parse_number("--revive", o.revive, 0, 0.5);
  if (!o.bandwidth.empty()) r.bandwidth = parse_number("--bandwidth", o.bandwidth, 1e-9, 100);
  if (!o.lambda.empty()) r.lambda = member.lambda;
  r.target_l0 = member.l0;
  r.controller = member.l0 > 0 && o.lambda.empty();
  if (r.controller) r.threshold_gain = threshold_gain(member.l0, member.latents);
  const bool rises = r.controller && r.l0_warmup > 0;
  if (!rises) r.l0_warmup = 0;
  if (!o.sparsity_warmup.empty())
    (rises ? r.l0_warmup : r.lambda_warmup) = parse_whole("--sparsity-warmup", o.sparsity_warmup, 0, kMostTokens);
  if (r.l0_warmup > plan.steps)
    throw UsageError(
        fmt::format("--sparsity-warmup {}: the target L0 would still rise when the run ends, after {} steps",
                    o.sparsity_warmup, plan.steps));
  r.first_l0 = r.l0_warmup > 0 ? first_l0(member.l0, member.latents) : member.l0;
  // a plain lambda says nothing of where its L0 will be: it starts as the default would
  const double target = member.l0 > 0 ? r.first_l0 : double(kDefaultL0);
  r.start_l0 = std::min(r.start_l0 * target, 0.5 * double(member.latents));
  return r;
}

}  // namespace gsae
