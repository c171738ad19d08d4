#include "tools/plan_options.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <limits>

#include "io/hub.h"
#include "tools/data_options.h"
#include "tools/suite.h"

namespace gsae {

void PlanOptions::add(CLI::App& command) {
  command.add_option("--shape", shape, "of the model: 2b, 9b, 27b or demo (default: 2b)")
      ->check(CLI::IsMember({"2b", "9b", "27b", "demo"}));
  command.add_option("--model", model, "folder, Hugging Face id in the local cache, or demo, instead of --shape")
      ->excludes("--shape");
  std::string names;
  for (const DevicePreset& p : device_presets()) names += (names.empty() ? "" : ", ") + p.name;
  command.add_option("--gpu", gpu, "plan for this GPU: " + names + " (default: this machine)");
  command.add_option("--device-memory", device_memory, "of a machine that is not there: 141G, in powers of two");
  command.add_option("--peak-flops", peak_flops, "that its products reach: 790T");
  command.add_option("--bandwidth", bandwidth, "bytes/s that its memory reaches: 4.3T");
  command.add_option("--layer", layer, "20, 0-25, 0-5,20 (default: 20; 3 of the demo's shape)");
  command.add_option("--site", site, "res, mlp, att (also pre, attn_out, mlp_in), or several")->capture_default_str();
  command.add_option("--width", width, "numbers of latents: 4096, 16k, 16k,1m")->capture_default_str();
  command.add_option("--l0", l0, "mean numbers of active latents: 80, 40,80,160")->capture_default_str();
  command.add_option("--batch", batch, "activations per step")->capture_default_str();
  command.add_option("--context", context, "tokens per context (default: 1024; 256 of the demo's shape)");
  command.add_option("--model-batch", model_batch, "contexts of one forward pass (default: chosen)");
  command.add_option("--buffer", buffer, "activations in the shuffle buffer (default: 1M, or what fits)");
  command.add_option("--dtype", dtype, "of the model's matrix products: bf16 or f32")
      ->check(CLI::IsMember({"bf16", "f32"}))
      ->capture_default_str();
  command.add_option("--precision", precision, "of the SAEs' products: bf16, f32, or tf32 (GPUs)")
      ->check(CLI::IsMember({"bf16", "tf32", "f32"}))
      ->capture_default_str();
  command.add_option("--tokens", tokens, "to train on")->capture_default_str();
  command.add_option("--eval-contexts", eval_contexts, "held-out contexts of the evaluation at the end; 0: none")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--json", json, "write the plan to this file");
  command.add_flag("--force", force, "replace the --json file if it exists");
  common.add(command);
}

namespace {

// "790T" -> 7.9e14, in powers of ten.
double parse_rate(const char* option, const std::string& text) {
  constexpr std::string_view kSuffixes = "kMGTP";
  std::string digits = text;
  double scale = 1;
  if (!digits.empty()) {
    const size_t power = kSuffixes.find(digits.back() == 'K' ? 'k' : digits.back());
    if (power != kSuffixes.npos) digits.pop_back();
    for (size_t i = 0; power != kSuffixes.npos && i <= power; ++i) scale *= 1000;
  }
  try {
    return scale * parse_number(option, digits, 1e-3, 1e18);
  } catch (const UsageError&) {
    throw UsageError(fmt::format("{} {}: must be a positive number a second, such as 790T or 4.3e12", option, text));
  }
}

double parse_memory(const std::string& text) {
  int64_t bytes = 0;
  try {
    bytes = parse_width(text);  // powers of two, as memory comes
  } catch (const UsageError&) {}
  if (bytes < 1)
    throw UsageError(fmt::format("--device-memory {}: must be a number of bytes such as 141G or 24G", text));
  return double(bytes);
}

GemmaConfig config_of(const PlanOptions& o) {
  return o.model.empty() ? named_shape(o.shape.empty() ? "2b" : o.shape) : read_config(find_model(o.model));
}

std::vector<SaeShape> suite_of(const PlanOptions& o, const GemmaConfig& config, bool demo) {
  constexpr int64_t kWidest = int64_t{1} << 24;
  SuiteLists lists;
  lists.layers = parse_layers(o.layer.empty() ? (demo ? "3" : "20") : o.layer, config);
  lists.sites = parse_sites(o.site);
  for (const std::string& text : split_list(o.width)) {
    lists.widths.push_back(parse_width(text));
    if (lists.widths.back() < 1 || lists.widths.back() > kWidest)
      throw UsageError(fmt::format("--width {}: must be from 1 to {} latents", text, format_width(kWidest)));
  }
  const int64_t narrowest = *std::min_element(lists.widths.begin(), lists.widths.end());
  for (const std::string& text : split_list(o.l0))
    lists.l0s.push_back(parse_number("--l0", text, 0.1, double(narrowest)));
  std::vector<SaeShape> saes;
  for (const SuiteMember& m : make_suite(lists)) {
    const int64_t width = m.site == Site::kAtt ? config.heads * config.head_width : config.width;
    saes.push_back({{m.site, m.layer}, width, m.latents, m.l0});
  }
  return saes;
}

}  // namespace

PlannedRun planned_run(const PlanOptions& o) {
  constexpr int64_t kLargest = int64_t{1} << 24, kMostTokens = 1'000'000'000'000'000;
  const bool demo = o.shape == "demo" || o.model == "demo";
  PlannedRun p;
  p.model = !o.model.empty() ? o.model : o.shape.empty() ? "2b" : o.shape;
  p.run.config = config_of(o);
  p.run.evaluates = o.eval_contexts > 0;
  RunChoices& c = p.choices;
  const int64_t longest = p.run.config.max_positions;
  c.context = o.context.empty() ? std::min<int64_t>(demo ? 256 : 1024, longest)
                                : parse_whole("--context", o.context, 2, longest);
  c.batch = parse_whole("--batch", o.batch, 1, kLargest);
  p.run.tokens = parse_whole("--tokens", o.tokens, c.batch, kMostTokens);
  if (!o.model_batch.empty()) c.model_batch = parse_whole("--model-batch", o.model_batch, 1, 1 << 20);
  if (!o.buffer.empty()) c.buffer = parse_whole("--buffer", o.buffer, 1, std::numeric_limits<int32_t>::max());
  c.dtype = o.dtype == "f32" ? DType::kF32 : DType::kBF16;
  c.precision = o.precision == "bf16" ? DType::kBF16 : DType::kF32;
  c.saes = suite_of(o, p.run.config, demo);
  return p;
}

PlannedMachine described_machine(const PlanOptions& o) {
  DevicePreset preset{.name = "a GPU", .title = "a GPU", .memory = 0};
  if (!o.gpu.empty()) {
    try {
      preset = device_preset(o.gpu);
    } catch (const Error& e) {
      throw UsageError(fmt::format("--gpu: {}", e.what()));
    }
  }
  const auto of_sheet = [&](const std::string& precision) {
    return kProductReach * (precision == "bf16" ? preset.bf16 : precision == "tf32" ? preset.tf32 : preset.f32);
  };
  PlannedMachine m;
  m.speed = {.model_products = of_sheet(o.dtype),
             .sae_products = of_sheet(o.precision),
             .memory = kCopyReach * preset.bandwidth};
  if (!o.device_memory.empty()) preset.memory = parse_memory(o.device_memory);
  if (!o.peak_flops.empty()) m.speed.model_products = m.speed.sae_products = parse_rate("--peak-flops", o.peak_flops);
  if (!o.bandwidth.empty()) m.speed.memory = parse_rate("--bandwidth", o.bandwidth);
  m.speed.cache = kCacheOverMemory * m.speed.memory;
  if (o.tf32() && o.common.device == "cpu")
    throw UsageError("--precision tf32: is for GPUs; give bf16 or f32 on the CPU");
  const bool cpu = o.common.device == "cpu" && o.gpu.empty();
  if (cpu) preset.title = "a CPU";
  m.title = fmt::format("{}, {:.0f} GiB", preset.title, preset.memory / (1 << 30));
  const double driver = cpu ? 0 : kDriverBytes;
  m.memory = MemoryPlan(cpu ? Device::kCpu : Device::kCuda, static_cast<int64_t>(std::max(preset.memory - driver, 0.0)),
                        preset.title);
  return m;
}

}  // namespace gsae
