#include "tools/plan_report.h"

#include <fmt/format.h>

#include <cmath>

#include "tools/passes.h"

namespace gsae {

PlanReport make_plan(const PlannedRun& planned, const PlannedMachine& machine) {
  PlanReport r{.run = planned, .machine = machine, .whole = {}, .ways = {}, .passes = {}};
  r.run.run.machine = machine.memory;
  const Planner planner = model_planner(r.run.run);
  const auto pass = [&](const RunChoices& c) {
    return PlannedPass{c, planner(c), plan_time(planned.run.config, c, machine.speed)};
  };
  r.whole = pass(planned.choices);
  if (r.fits()) return r;
  r.ways = cheapest_ways(planned.choices, planner);
  const auto of = [&](const std::vector<int>& part) {
    RunChoices c = planned.choices;
    c.saes.clear();
    for (const int i : part) c.saes.push_back(planned.choices.saes[i]);
    return c;
  };
  for (const std::vector<int>& part : split_into_passes(
           planned.choices.saes, [&](const std::vector<int>& some) { return planner(of(some)).memory.fits(); }))
    r.passes.push_back(pass(of(part)));
  return r;
}

namespace {

std::string place_text(const Place& p) { return fmt::format("{}.{}", name(p.site), p.layer); }

std::string duration(double seconds) {
  if (seconds >= 48 * 3600) return fmt::format("{:.1f} days", seconds / 86400);
  if (seconds >= 3600) return fmt::format("{:.1f} h", seconds / 3600);
  return seconds >= 60 ? fmt::format("{:.1f} min", seconds / 60) : fmt::format("{:.1f} s", seconds);
}

double seconds_of(const PlanReport& r, const PlannedPass& p) {
  const auto batch = double(p.choices.batch);
  return std::floor(double(r.run.run.tokens) / batch) * batch / p.time.expected();
}

std::string line(const std::string& what, double seconds, const std::string& note) {
  return fmt::format("  {:<28} {:>8.3f} us  {}\n", what, 1e6 * seconds, note);
}

std::string time_text(const PlanReport& r) {
  const TimePlan& t = r.whole.time;
  const DeviceSpeed& s = r.machine.speed;
  if (!known(s)) return "time: unknown; give --gpu, or --peak-flops and --bandwidth\n";
  const auto n = static_cast<int64_t>(t.steps.size());
  std::string text = fmt::format(
      "time of an activation, at {:.4g} TFLOP/s{} and {:.3g} TB/s (docs/planning.md)\n", s.model_products / 1e12,
      s.sae_products != s.model_products ? fmt::format(" (SAEs {:.4g})", s.sae_products / 1e12) : "", s.memory / 1e12);
  text += line("forward", t.forward, fmt::format("{:.2f} GFLOP a token", t.flops_per_token / 1e9));
  text += line(n > 1 ? fmt::format("{} SAE steps", n) : "SAE step", t.saes.total(),
               t.sparse == 0   ? "dense"
               : t.sparse == n ? "exactly sparse, at this L0"
                               : fmt::format("{} exactly sparse, {} dense, at these L0s", t.sparse, n - t.sparse));
  text += line("  products", t.saes.products, "");
  text += line("  optimizer", t.saes.optimizer, "parameters and second moments");
  if (t.sparse > 0) {
    text += line("  gathers", t.saes.gathers, "rows of W_dec, an entry each");
    text += line("  cache", t.saes.cached, "");
  }
  text += line("total", t.forward + t.saes.total(), fmt::format("bound by: {}", t.bound()));
  text += fmt::format("  {:<28} {:>8.0f} tok/s roof, {:.0f} expected ({:.0f} %)\n", "speed", t.roof(), t.expected(),
                      100 * kExpectedReach);
  if (r.fits())
    text += fmt::format("  {:<28} {:>11}  for {:.4g} tokens\n", "run", duration(seconds_of(r, r.whole)),
                        double(r.run.run.tokens));
  return text;
}

std::string passes_text(const PlanReport& r) {
  if (r.passes.size() < 2) return "";
  std::string text;
  double all = 0;
  for (size_t i = 0; i < r.passes.size(); ++i) {
    const PlannedPass& p = r.passes[i];
    const std::string first = place_text(p.choices.saes.front().place), last = place_text(p.choices.saes.back().place);
    text += fmt::format("  {:>2}  {:>4} SAEs  {:<20} {:>10}  buffer {:>9}", i + 1, p.choices.saes.size(),
                        first == last ? first : first + " to " + last, format_bytes(p.plan.memory.total()),
                        p.plan.suite.rows);
    if (known(r.machine.speed)) {
      all += seconds_of(r, p);
      text += fmt::format("  {:>7.0f} tok/s  {}", p.time.expected(), duration(seconds_of(r, p)));
    }
    text += "\n";
  }
  return fmt::format("in {} passes over the data{}\n{}", r.passes.size(),
                     all > 0 ? fmt::format(", {} in all", duration(all)) : "", text);
}

}  // namespace

std::string plan_text(const PlanReport& r) {
  const size_t n = r.run.choices.saes.size(), places = places_of(r.run.choices.saes).size();
  std::string text = fmt::format("{} SAE{} at {} place{} of {}, on {}\n\n{}\n\n", n, n == 1 ? "" : "s", places,
                                 places == 1 ? "" : "s", r.run.model, r.machine.title, r.whole.plan.memory.table());
  text += time_text(r);
  if (r.fits()) return text;
  text += "\nthis does not fit: " + describe_ways(r.ways, r.whole.plan.memory) + "\n";
  if (const std::string passes = passes_text(r); !passes.empty()) text += "\n" + passes;
  return text;
}

namespace {

using Json = nlohmann::ordered_json;

Json pass_json(const PlanReport& r, const PlannedPass& p) {
  Json j;
  Json& memory = j["memory"];
  for (const MemoryPlan::Part& part : p.plan.memory.parts())
    memory["parts"].push_back(
        {{"what", part.what}, {"bytes", part.bytes}, {"on_host", part.on_host}, {"note", part.note}});
  memory["total_bytes"] = p.plan.memory.total();
  memory["host_bytes"] = p.plan.memory.host_total();
  memory["available_bytes"] = p.plan.memory.available();
  j["fits"] = p.plan.memory.fits();
  j["buffer_rows"] = p.plan.suite.rows;
  j["model_batch"] = p.plan.contexts;
  const bool timed = known(r.machine.speed);
  for (size_t i = 0; i < p.choices.saes.size(); ++i) {
    const SaeShape& s = p.choices.saes[i];
    Json sae{
        {"site", name(s.place.site)}, {"layer", s.place.layer}, {"d", s.width}, {"latents", s.latents}, {"l0", s.l0}};
    if (timed) {
      const StepTime& t = p.time.steps[i];
      sae.update({{"step", t.sparse ? "sparse" : "dense"}, {"seconds_per_token", t.total()}, {"bound", t.bound()}});
    }
    j["saes"].push_back(sae);
  }
  j["time"] = nullptr;
  if (timed) {
    const TimePlan& t = p.time;
    j["time"] = Json{{"forward_flops_per_token", t.flops_per_token},
                     {"forward_seconds_per_token", t.forward},
                     {"sae_seconds_per_token", t.saes.total()},
                     {"roof_tokens_per_second", t.roof()},
                     {"expected_tokens_per_second", t.expected()},
                     {"expected_seconds", seconds_of(r, p)},
                     {"bound", t.bound()}};
  }
  return j;
}

}  // namespace

Json plan_json(const PlanReport& r) {
  const RunChoices& c = r.run.choices;
  Json j{{"model", r.run.model}, {"machine", r.machine.title}, {"tokens", r.run.run.tokens},    {"context", c.context},
         {"batch", c.batch},     {"dtype", name(c.dtype)},     {"precision", name(c.precision)}};
  j.update(pass_json(r, r.whole));
  j["ways_to_fit"] = Json::array();
  for (const Remedy& way : r.ways) j["ways_to_fit"].push_back({{"change", way.change}, {"saves_bytes", way.saves}});
  j["passes"] = Json::array();
  for (const PlannedPass& p : r.passes) j["passes"].push_back(pass_json(r, p));
  return j;
}

}  // namespace gsae
