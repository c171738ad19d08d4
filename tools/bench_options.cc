#include "tools/bench_options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <limits>

#include "tools/data_options.h"

namespace gsae {

void BenchOptions::add(CLI::App& command) {
  command.add_option("--shape", shape, "of the model: 2b, 9b, 27b or demo")
      ->check(CLI::IsMember({"2b", "9b", "27b", "demo"}))
      ->capture_default_str();
  command.add_option("--layer", layer, "whose activations are trained on (default: 20; 3 of the demo's shape)");
  command.add_option("--site", site, "res, mlp, att (also pre, attn_out, mlp_in)")->capture_default_str();
  command.add_option("--width", width, "number of latents: 4096, 16k, 1m")->capture_default_str();
  command.add_option("--l0", l0, "mean number of active latents (default: 80)");
  command.add_option("--batch", batch, "activations per step")->capture_default_str();
  command.add_option("--context", context, "tokens per context (default: 1024; 256 of the demo's shape)");
  command.add_option("--model-batch", model_batch,
                     "contexts of one forward pass (default: about 1k tokens; 8k on GPUs)");
  command.add_option("--buffer", buffer, "activations in the shuffle buffer (default: 1M, or what fits)");
  command.add_option("--dtype", dtype, "of the model's matrix products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--precision", precision, "of the SAE's products: bf16, f32, or tf32 (GPUs)")
      ->check(CLI::IsMember({"bf16", "tf32", "f32"}))
      ->capture_default_str();
  command.add_option("--seconds", seconds, "to measure for, after the warm-up (default: 10)");
  command.add_option("--steps", steps, "to measure for, instead of --seconds")->excludes("--seconds");
  command.add_flag("--eager", eager, "run every op by itself instead of CUDA graphs");
  command.add_option("--json", json, "write the results to this file");
  command.add_flag("--force", force, "replace the --json file if it exists");
  common.add(command);
}

BenchPlan plan_bench(const BenchOptions& o) {
  constexpr int64_t kWidest = int64_t{1} << 24, kLargestBatch = int64_t{1} << 24, kDefaultL0 = 80;
  const bool demo = o.shape == "demo";
  BenchPlan plan;
  plan.shape_name = o.shape;
  plan.config = named_shape(o.shape);
  const std::vector<Site> sites = parse_sites(o.site);
  const std::vector<int64_t> layers = parse_layers(o.layer.empty() ? (demo ? "3" : "20") : o.layer, plan.config);
  if (layers.size() != 1 || sites.size() != 1)
    throw UsageError(
        fmt::format("--layer {} --site {}: one SAE is trained; give one layer and one site", o.layer, o.site));
  plan.layer = layers[0];
  plan.site = sites[0];
  plan.config.layers = plan.layer + 1;
  plan.config.sliding.resize(plan.config.layers);

  const int64_t longest = plan.config.max_positions;
  plan.context = o.context.empty() ? (demo ? 256 : 1024) : parse_whole("--context", o.context, 2, longest);
  if (!o.model_batch.empty()) plan.model_batch = parse_whole("--model-batch", o.model_batch, 1, 1 << 20);
  plan.width = parse_width(o.width);
  if (plan.width < 1 || plan.width > kWidest)
    throw UsageError(fmt::format("--width {}: must be from 1 to {} latents", o.width, format_width(kWidest)));
  plan.batch = parse_whole("--batch", o.batch, 1, kLargestBatch);
  if (!o.buffer.empty()) plan.buffer = parse_whole("--buffer", o.buffer, 1, std::numeric_limits<int32_t>::max());
  if (o.l0.empty() && plan.width <= kDefaultL0)
    throw UsageError(fmt::format("--width {}: as few latents need an --l0 (the default is {})", o.width, kDefaultL0));
  plan.l0 = o.l0.empty() ? double(kDefaultL0) : parse_number("--l0", o.l0, 0.1, double(plan.width));
  plan.dtype = o.dtype == "f32" ? DType::kF32 : DType::kBF16;
  plan.precision = o.precision == "bf16" ? DType::kBF16 : DType::kF32;
  plan.tf32 = o.precision == "tf32";
  if (!o.steps.empty()) plan.steps = parse_whole("--steps", o.steps, 1, 1'000'000'000);
  plan.seconds = o.seconds.empty() ? 10 : parse_number("--seconds", o.seconds, 0.1, 86400);
  return plan;
}

}  // namespace gsae
