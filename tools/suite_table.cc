#include "tools/suite_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace gsae {

namespace {

constexpr double kL0Off = 0.2, kMostDead = 0.2, kSettled = 1.0 / 3;

// NaN is worse than any number.
double orderly(double x) { return std::isnan(x) ? std::numeric_limits<double>::infinity() : x; }

double dead_fraction(const SuiteStatus& s) { return double(s.metrics.dead) / double(std::max<int64_t>(s.latents, 1)); }
double l0_ratio(const SuiteStatus& s) { return s.metrics.l0 / s.metrics.target_l0; }
// 2 and 1/2 are as far from the target.
double l0_distance(const SuiteStatus& s) { return orderly(std::fabs(std::log(l0_ratio(s)))); }

std::vector<const SuiteStatus*> reported(std::span<const SuiteStatus> suite) {
  std::vector<const SuiteStatus*> all;
  for (const SuiteStatus& s : suite)
    if (s.metrics.rows > 0) all.push_back(&s);
  return all;
}

// Best, median, worst: those of the smallest, the middle and the largest cost; of an even number the worse middle one.
std::vector<const SuiteStatus*> pick(std::vector<const SuiteStatus*> all,
                                     const std::function<double(const SuiteStatus&)>& cost) {
  std::stable_sort(all.begin(), all.end(), [&](auto* a, auto* b) { return cost(*a) < cost(*b); });
  return {all.front(), all[all.size() / 2], all.back()};
}

double fvu_cost(const SuiteStatus& s) { return orderly(s.metrics.fvu); }

}  // namespace

std::string trouble_of(const SuiteStatus& s, double done) {
  if (s.metrics.rows == 0) return "";
  if (!std::isfinite(s.metrics.loss)) return fmt::format("the loss is {}", s.metrics.loss);
  if (s.metrics.target_l0 > 0 && done > kSettled && !(std::fabs(l0_ratio(s) - 1) <= kL0Off))
    return fmt::format("L0 is {:.4g}, not {:g}", s.metrics.l0, s.metrics.target_l0);
  if (dead_fraction(s) > kMostDead) return fmt::format("{:.0f} % of the latents are dead", 100 * dead_fraction(s));
  return "";
}

std::string suite_line(std::span<const SuiteStatus> suite, double done) {
  std::string line = fmt::format("{} SAEs", suite.size());
  const std::vector<const SuiteStatus*> all = reported(suite);
  if (all.empty()) return line;
  const auto fvu = pick(all, fvu_cost);
  line += fmt::format("  FVU {:.3f}/{:.3f}/{:.3f}", fvu[0]->metrics.fvu, fvu[1]->metrics.fvu, fvu[2]->metrics.fvu);
  std::vector<const SuiteStatus*> targeted;
  std::copy_if(all.begin(), all.end(), std::back_inserter(targeted), [](auto* s) { return s->metrics.target_l0 > 0; });
  if (!targeted.empty()) {
    const auto l0 = pick(targeted, l0_distance);
    line += fmt::format("  L0/target {:.2f}/{:.2f}/{:.2f}", l0_ratio(*l0[0]), l0_ratio(*l0[1]), l0_ratio(*l0[2]));
  }
  const auto dead = pick(all, dead_fraction);
  line += fmt::format("  dead {:.1f}/{:.1f}/{:.1f}%", 100 * dead_fraction(*dead[0]), 100 * dead_fraction(*dead[1]),
                      100 * dead_fraction(*dead[2]));
  const auto in_trouble = [&](auto* s) { return !trouble_of(*s, done).empty(); };
  if (const auto count = std::count_if(all.begin(), all.end(), in_trouble); count > 0)
    line += fmt::format("  {} in trouble: {}{}", count, (*std::find_if(all.begin(), all.end(), in_trouble))->name,
                        count > 1 ? ", ..." : "");
  return line;
}

std::string suite_table(std::span<const SuiteStatus> suite, double done) {
  struct Line {
    std::string label;
    const SuiteStatus* sae;
  };
  std::vector<Line> lines;
  const std::vector<const SuiteStatus*> all = reported(suite);
  constexpr size_t kFew = 4;
  if (all.empty()) return "";
  if (all.size() <= kFew) {
    for (const SuiteStatus* s : all) lines.push_back({"", s});
  } else {
    const auto fvu = pick(all, fvu_cost);
    lines = {{"best", fvu[0]}, {"median", fvu[1]}, {"worst", fvu[2]}};
    for (const SuiteStatus* s : all)
      if (!trouble_of(*s, done).empty() && std::find(fvu.begin(), fvu.end(), s) == fvu.end()) lines.push_back({"", s});
  }
  size_t columns = 0;
  for (const Line& line : lines) columns = std::max(columns, line.sae->name.size());
  std::string out = fmt::format("{:6}  {:<{}}  {:>8}  {:>8}  {:>8}  {:>9}  {:>7}\n", "", "", columns, "asked L0", "L0",
                                "FVU", "loss", "dead");
  for (const auto& [label, sae] : lines) {
    const std::string trouble = trouble_of(*sae, done);
    const StepMetrics& m = sae->metrics;
    out += fmt::format("{:6}  {:<{}}  {:>8}  {:>8.2f}  {:>8.4f}  {:>9.4g}  {:>5.1f} %{}\n", label, sae->name, columns,
                       m.target_l0 > 0 ? fmt::format("{:g}", m.target_l0) : "-", m.l0, m.fvu, m.loss,
                       100 * dead_fraction(*sae), trouble.empty() ? "" : "  " + trouble);
  }
  return out;
}

}  // namespace gsae
