#include "tools/bench_report.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "tools/memory_plan.h"
#include "tools/step_cost.h"

namespace gsae {

double published_bf16_peak(const std::string& device) {
  // TFLOP/s without sparsity; of two names that fit, the longer stands first. NVIDIA's data sheets.
  constexpr std::array<std::pair<std::string_view, double>, 10> peaks{{{"B200", 2250},
                                                                       {"H200 NVL", 835},
                                                                       {"H200", 989},
                                                                       {"H100 NVL", 835},
                                                                       {"H100 PCIe", 756},
                                                                       {"H100", 989},
                                                                       {"A100", 312},
                                                                       {"L40S", 362},
                                                                       {"RTX 4090", 165},
                                                                       {"RTX 3090", 71}}};
  constexpr double kUnknown = std::numeric_limits<double>::infinity();
  if (device.find("MIG") != device.npos) return kUnknown;
  for (const auto& [name, teraflops] : peaks)
    if (device.find(name) != device.npos) return teraflops * 1e12;
  return kUnknown;
}

namespace {

double known(double x) { return std::isfinite(x) ? x : 0; }

// Of `seconds` that took model_flops and sae_flops.
Speed speed(const BenchResult& r, double count, double seconds, double roof, double model_flops, double sae_flops) {
  const double flops = model_flops + sae_flops;
  return {.per_second = count / seconds,
          .roof = roof,
          .flops = flops / seconds,
          .mfu = (model_flops / r.roofs.model_peak + sae_flops / r.roofs.sae_peak) / seconds,
          .published_mfu = known(flops / r.roofs.published / seconds)};
}

double tokens_of_pass(const BenchResult& r) { return double(r.contexts * r.plan.context); }
double flops_of_pass(const BenchResult& r) { return r.flops_per_token * tokens_of_pass(r); }
double flops_of_step(const BenchResult& r) { return double(r.plan.batch) * sae_flops_per_row(r.d, r.plan.width); }
double roof_seconds_of_step(const BenchResult& r) {
  return step_roof_seconds(r.plan.batch, r.d, r.plan.width, r.plan.precision, r.roofs.sae_peak, r.roofs.bandwidth);
}

}  // namespace

Speed forward_speed(const BenchResult& r) {
  const double passes = double(r.forward.passes);
  return speed(r, passes * tokens_of_pass(r), r.forward.seconds, r.roofs.model_peak / r.flops_per_token,
               passes * flops_of_pass(r), 0);
}

Speed sae_speed(const BenchResult& r) {
  const double steps = double(r.sae.steps), batch = double(r.plan.batch);
  return speed(r, steps * batch, r.sae.seconds, batch / roof_seconds_of_step(r), 0, steps * flops_of_step(r));
}

Speed whole_speed(const BenchResult& r) {
  const double rows = double(r.whole.steps * r.plan.batch);
  const double passes = rows / double(r.pass_rows);  // that bring as many
  const double pass_seconds = r.forward.seconds / double(r.forward.passes);
  const double seconds = r.whole.seconds + (passes - double(r.whole.passes)) * pass_seconds;
  const double roof_seconds =
      passes * flops_of_pass(r) / r.roofs.model_peak + double(r.whole.steps) * roof_seconds_of_step(r);
  return speed(r, rows, seconds, rows / roof_seconds, passes * flops_of_pass(r),
               double(r.whole.steps) * flops_of_step(r));
}

namespace {

// Four digits: 790.1 TFLOP, 1.662 GB, 75 tok/s.
std::string si(double x, const char* unit) {
  const std::array<const char*, 5> prefixes{"", "k", "M", "G", "T"};
  size_t i = 0;
  for (; x >= 999.95 && i + 1 < prefixes.size(); ++i) x /= 1000;
  return fmt::format("{:.4g} {}{}", x, prefixes[i], unit);
}
std::string flops(double x) { return si(x, "FLOP"); }
std::string flops_per_second(double x) { return si(x, "FLOP/s"); }
std::string tokens_per_second(double x) { return si(x, "tok/s"); }
std::string bytes(double x) { return si(x, "B"); }
std::string bytes_per_second(double x) { return si(x, "B/s"); }
std::string duration(double seconds) {
  if (seconds >= 1) return fmt::format("{:.4g} s", seconds);
  return seconds >= 1e-3 ? fmt::format("{:.4g} ms", seconds * 1e3) : fmt::format("{:.4g} us", seconds * 1e6);
}
std::string percent(double fraction) { return fraction > 0 ? fmt::format("{:.1f} %", 100 * fraction) : "unknown"; }
std::string if_known(double x, auto&& text) { return std::isfinite(x) ? text(x) : "unknown"; }

const char* products(const BenchPlan& p) { return p.tf32 ? "tf32" : name(p.precision); }

}  // namespace

std::string bench_table(const BenchResult& r) {
  const BenchPlan& p = r.plan;
  const Speed forward = forward_speed(r), sae = sae_speed(r), whole = whole_speed(r);
  std::string out = fmt::format(
      "{} with random weights on {}\n{}.{} (layers 0 to {} of {}), {} latents; {} contexts of {} a pass, {} "
      "activations a step\n",
      p.shape_name, r.device, name(p.site), p.layer, p.layer, r.layers, format_width(p.width), r.contexts, p.context,
      p.batch);
  out += fmt::format("roofs, measured: products {} {}", if_known(r.roofs.model_peak, flops_per_second), name(p.dtype));
  if (p.precision != p.dtype || p.tf32)
    out += fmt::format(", {} {}", if_known(r.roofs.sae_peak, flops_per_second), products(p));
  out += fmt::format("; copy {}", if_known(r.roofs.bandwidth, bytes_per_second));
  if (std::isfinite(r.roofs.published)) out += fmt::format("; published: {} bf16", flops_per_second(r.roofs.published));
  out += fmt::format("\n\n{:<10}{:>16}{:>16}{:>10}{:>10}", "", "reached", "roof", "of roof", "MFU");
  const bool published = std::isfinite(r.roofs.published);
  if (published) out += fmt::format("{:>12}", "published");
  const auto line = [&](const char* what, const Speed& s, const std::string& note) {
    out += fmt::format("\n{:<10}{:>16}{:>16}{:>10}{:>10}", what, tokens_per_second(s.per_second),
                       if_known(s.roof, tokens_per_second), percent(s.roof_fraction()), percent(s.mfu));
    if (published) out += fmt::format("{:>12}", percent(s.published_mfu));
    out += "   " + note;
  };
  const StepBytes moved = step_bytes(p.batch, r.d, p.width, p.precision);
  line("forward", forward,
       fmt::format("{} a pass, {} a token, {}", duration(r.forward.seconds / double(r.forward.passes)),
                   flops(r.flops_per_token), flops_per_second(forward.flops)));
  line("SAE step", sae,
       fmt::format("{} a step, {} an activation, {}", duration(r.sae.seconds / double(r.sae.steps)),
                   flops(sae_flops_per_row(r.d, p.width)), flops_per_second(sae.flops)));
  line("whole", whole,
       fmt::format("{} a step with its share of the forward, {}", duration(double(p.batch) / whole.per_second),
                   flops_per_second(whole.flops)));
  const auto at_bandwidth = [&](double x) {
    return std::isfinite(r.roofs.bandwidth) ? fmt::format("{} ({})", bytes(x), duration(x / r.roofs.bandwidth))
                                            : bytes(x);
  };
  out += fmt::format("\n\n{:<10}{} by the optimizer, {} beside it that fusion could save a part of\n", "SAE bytes",
                     at_bandwidth(moved.optimizer), at_bandwidth(moved.elementwise));
  out += fmt::format("{:<10}{:.1f} ({:g} asked for)\n", "L0", r.l0, p.l0);
  out += fmt::format("{:<10}{} used, {} planned ({:+.1f} %)\n", "memory", format_bytes(r.used), format_bytes(r.planned),
                     100 * (double(r.used) / double(r.planned) - 1));
  return out;
}

namespace {

nlohmann::ordered_json number(double x) {
  if (std::isfinite(x)) return x;
  return nullptr;
}
nlohmann::ordered_json fraction(double x) {
  if (x > 0) return x;
  return nullptr;
}
nlohmann::ordered_json to_json(const Speed& s, const BenchResult::Interval& measured) {
  nlohmann::ordered_json j{{"tokens_per_second", s.per_second},
                           {"roof_tokens_per_second", number(s.roof)},
                           {"roof_fraction", fraction(s.roof_fraction())},
                           {"flops_per_second", s.flops},
                           {"mfu", fraction(s.mfu)},
                           {"published_mfu", fraction(s.published_mfu)},
                           {"seconds", measured.seconds}};
  if (measured.passes > 0) j["passes"] = measured.passes;
  if (measured.steps > 0) j["steps"] = measured.steps;
  return j;
}

}  // namespace

nlohmann::ordered_json bench_json(const BenchResult& r) {
  const BenchPlan& p = r.plan;
  const StepBytes moved = step_bytes(p.batch, r.d, p.width, p.precision);
  nlohmann::ordered_json j{{"version", GSAE_VERSION},
                           {"device", r.device},
                           {"shape", p.shape_name},
                           {"site", name(p.site)},
                           {"layer", p.layer},
                           {"d", r.d},
                           {"width", p.width},
                           {"batch", p.batch},
                           {"context", p.context},
                           {"model_batch", r.contexts},
                           {"dtype", name(p.dtype)},
                           {"precision", products(p)},
                           {"l0", {{"asked", p.l0}, {"measured", r.l0}}}};
  j["roofs"] = {{"model_product_flops_per_second", number(r.roofs.model_peak)},
                {"sae_product_flops_per_second", number(r.roofs.sae_peak)},
                {"copy_bytes_per_second", number(r.roofs.bandwidth)},
                {"published_bf16_flops_per_second", number(r.roofs.published)}};
  j["forward"] = to_json(forward_speed(r), r.forward);
  j["forward"]["flops_per_token"] = r.flops_per_token;
  j["sae_step"] = to_json(sae_speed(r), r.sae);
  j["sae_step"]["flops_per_row"] = sae_flops_per_row(r.d, p.width);
  j["sae_step"]["optimizer_bytes"] = moved.optimizer;
  j["sae_step"]["elementwise_bytes"] = moved.elementwise;
  j["whole"] = to_json(whole_speed(r), r.whole);
  j["memory"] = {{"planned_bytes", r.planned}, {"used_bytes", r.used}};
  return j;
}

}  // namespace gsae
