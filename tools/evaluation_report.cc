#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "tools/evaluate.h"
#include "tools/evaluation_summary.h"

namespace gsae {

namespace {

nlohmann::ordered_json number(double x) {
  if (std::isfinite(x)) return x;
  return nullptr;
}

// To as many digits as the standard error leaves two of; five where there is none.
std::string with_error(const Estimate& e) {
  if (!std::isfinite(e.value)) return "-";
  if (!std::isfinite(e.error) || e.error <= 0) return fmt::format("{:.5g}", e.value);
  const int decimals = std::max(0, 1 - static_cast<int>(std::floor(std::log10(e.error))));
  return fmt::format("{:.{}f} ± {:.{}f}", e.value, decimals, e.error, decimals);
}

// fmt counts "±" as one column; so does the other.
std::string pad(const std::string& text, size_t columns) { return fmt::format("{:>{}}", text, columns); }
size_t columns_in(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

nlohmann::ordered_json to_json(const Estimate& e) {
  return {{"value", number(e.value)}, {"standard_error", number(e.error)}};
}

nlohmann::ordered_json to_json(const Evaluation& e) {
  nlohmann::ordered_json j{{"contexts", e.contexts}, {"context", e.context}, {"loss_contexts", e.loss_contexts}};
  if (e.has_losses()) j["predicted_tokens"] = e.predicted, j["lm_loss"] = to_json(e.lm_loss);
  return j;
}

nlohmann::ordered_json to_json(const Evaluation& e, size_t target) {
  const auto& [m, loss] = e.saes.at(target);
  nlohmann::ordered_json j{{"tokens", m.tokens},
                           {"contexts", m.contexts},
                           {"latents", m.latents()},
                           {"l0", to_json(m.l0)},
                           {"fvu", to_json(m.fvu)},
                           {"explained_variance", to_json(Estimate{1 - m.fvu.value, m.fvu.error})},
                           {"mse", to_json(m.mse)},
                           {"cosine", to_json(m.cosine)},
                           {"norm_ratio", to_json(m.norm_ratio)},
                           {"dead", double(m.dead()) / double(m.latents())},
                           {"dead_latents", m.dead()}};
  if (e.has_losses()) {
    j["spliced_loss"] = to_json(loss.spliced);
    j["delta_loss"] = to_json(loss.delta);
    j["delta_loss_zero_ablation"] = to_json(loss.delta_zero);
    j["delta_loss_mean_ablation"] = to_json(loss.delta_mean);
    j["loss_recovered"] = to_json(loss.recovered_zero);
    j["loss_recovered_mean_ablation"] = to_json(loss.recovered_mean);
  }
  if (!m.by_position.empty()) {
    j["by_position"] = nlohmann::ordered_json::array();
    for (const PositionMetrics& p : m.by_position)
      j["by_position"].push_back(
          {{"from", p.from}, {"to", p.to}, {"tokens", p.tokens}, {"l0", to_json(p.l0)}, {"fvu", to_json(p.fvu)}});
  }
  std::vector<double> edges;
  for (int i = 0; i <= kDensityBins; ++i) edges.push_back(kLowestDensity + i * kDensityBinWidth);
  j["density"] = {{"log10_edges", edges}, {"latents", density_histogram(m.fired, m.tokens)}};
  return j;
}

namespace {

// Columns beside each other, the first to the left.
std::string lay_out(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t c = 0; c < line.size(); ++c) widths[c] = std::max(widths[c], columns_in(line[c]));
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text = fmt::format("{:<{}}", line[0], widths[0]);
    for (size_t c = 1; c < line.size(); ++c) text += "  " + pad(line[c], widths[c]);
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

std::string name(const Dominated& d) {
  return d.fvu && d.delta_loss ? "FVU, delta loss" : d.fvu ? "FVU" : d.delta_loss ? "delta loss" : "";
}

using Sae = Evaluation::Sae;

struct Figure {
  const char *name, *formula;
  std::function<std::string(const Sae&)> cell;
};

std::string percent(const SaeMetrics& m) {
  return fmt::format("{:.2f} %", 100.0 * double(m.dead()) / double(m.latents()));
}

std::vector<Figure> figures(const Evaluation& e) {
  std::vector<Figure> f{
      {"L0", "mean count of f > 0", [](const Sae& s) { return with_error(s.metrics.l0); }},
      {"FVU", "sum |x_hat - x|^2 / sum |x - mean x|^2", [](const Sae& s) { return with_error(s.metrics.fvu); }},
      {"MSE", "mean |x_hat - x|^2", [](const Sae& s) { return with_error(s.metrics.mse); }},
      {"cosine", "mean x . x_hat / (|x| |x_hat|)", [](const Sae& s) { return with_error(s.metrics.cosine); }},
      {"norm ratio", "mean |x_hat| / |x|", [](const Sae& s) { return with_error(s.metrics.norm_ratio); }},
      {"dead latents", "never fired here",
       [](const Sae& s) { return fmt::format("{} ({})", s.metrics.dead(), percent(s.metrics)); }}};
  if (!e.has_losses()) return f;
  f.push_back({"delta loss", "L_spliced - L_clean", [](const Sae& s) { return with_error(s.loss.delta); }});
  f.push_back({"  of zeros", "L_zero - L_clean", [](const Sae& s) { return with_error(s.loss.delta_zero); }});
  f.push_back({"  of the mean", "L_mean - L_clean", [](const Sae& s) { return with_error(s.loss.delta_mean); }});
  f.push_back({"recovered", "(L_zero - L_spliced) / (L_zero - L_clean)",
               [](const Sae& s) { return with_error(s.loss.recovered_zero); }});
  f.push_back({"  of the mean", "(L_mean - L_spliced) / (L_mean - L_clean)",
               [](const Sae& s) { return with_error(s.loss.recovered_mean); }});
  return f;
}

std::string columns_of_saes(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  constexpr size_t kName = 14, kCell = 20;
  std::string out = fmt::format("{:<{}}", "", kName);
  const auto cell = [&](size_t i, const std::string& text) {
    return "  " + pad(text, std::max(kCell, targets[i].name.size()));
  };
  for (size_t i = 0; i < targets.size(); ++i) out += cell(i, targets[i].name);
  for (const Figure& figure : figures(e)) {
    out += fmt::format("\n{:<{}}", figure.name, kName);
    for (size_t i = 0; i < e.saes.size(); ++i) out += cell(i, figure.cell(e.saes[i]));
    out += fmt::format("   {}", figure.formula);
  }
  return out + "\n";
}

// The figures that SAEs are compared by, one SAE a row.
std::string rows_of_saes(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  std::vector<Figure> columns{
      {"L0", "mean count of f > 0", [](const Sae& s) { return with_error(s.metrics.l0); }},
      {"FVU", "sum |x_hat - x|^2 / sum |x - mean x|^2", [](const Sae& s) { return with_error(s.metrics.fvu); }}};
  if (e.has_losses()) {
    columns.push_back({"delta loss", "L_spliced - L_clean", [](const Sae& s) { return with_error(s.loss.delta); }});
    columns.push_back({"recovered", "(L_zero - L_spliced) / (L_zero - L_clean)",
                       [](const Sae& s) { return with_error(s.loss.recovered_zero); }});
  }
  columns.push_back({"dead", "latents that never fired here", [](const Sae& s) { return percent(s.metrics); }});

  std::vector<size_t> order(targets.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto key = [&](size_t i) {
    return std::tuple(targets[i].layer, targets[i].site, targets[i].latents, e.saes[i].metrics.l0.value);
  };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key(a) < key(b); });

  const std::vector<Dominated> dominated = pareto(e, targets);
  std::vector<std::vector<std::string>> lines{{"", "asked L0"}};
  for (const Figure& column : columns) lines[0].push_back(column.name);
  lines[0].push_back("dominated in");
  for (const size_t i : order) {
    lines.push_back({targets[i].name, targets[i].l0 > 0 ? fmt::format("{:g}", targets[i].l0) : "-"});
    for (const Figure& column : columns) lines.back().push_back(column.cell(e.saes[i]));
    lines.back().push_back(name(dominated[i]));
  }
  std::string out = lay_out(lines);
  for (const Figure& column : columns) out += fmt::format("\n{}: {}", column.name, column.formula);
  return out + "\ndominated in: another SAE of this place has no more L0 and no more of it, and less of one\n";
}

}  // namespace

std::string evaluation_table(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  std::string out;
  if (e.has_losses()) {
    out += fmt::format("LM loss {} nats per token (perplexity {:.2f}), {} tokens in {} contexts of {}\n",
                       with_error(e.lm_loss), std::exp(e.lm_loss.value), e.predicted, e.loss_contexts, e.context);
  }
  if (e.saes.empty()) return out;
  out += fmt::format("{} tokens without BOS, EOS and padding{}; ± standard error over contexts\n\n",
                     e.saes[0].metrics.tokens,
                     e.has_losses() && e.loss_contexts < e.contexts ? fmt::format(" in {} contexts", e.contexts) : "");
  constexpr size_t kMostColumns = 4;  // of a terminal's width
  return out + (e.saes.size() <= kMostColumns ? columns_of_saes(e, targets) : rows_of_saes(e, targets));
}

std::string evaluation_summaries(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  std::string out;
  constexpr size_t kMostColumns = 4;
  const auto range = [](const PositionMetrics& p) {
    return p.from == p.to ? std::to_string(p.from) : fmt::format("{}-{}", p.from, p.to);
  };
  if (const auto& first = e.saes.at(0).metrics.by_position; !first.empty()) {  // all SAEs have the same tokens
    std::vector<std::vector<std::string>> lines{{"position", "tokens"}};
    for (const PositionMetrics& p : first) lines.push_back({range(p), std::to_string(p.tokens)});
    if (e.saes.size() <= kMostColumns) {
      for (size_t i = 0; i < e.saes.size(); ++i) {
        const auto& positions = e.saes[i].metrics.by_position;
        const std::string of = e.saes.size() == 1 ? "" : " of " + targets[i].name;
        lines[0].insert(lines[0].end(), {"L0" + of, "FVU" + of});
        for (size_t k = 0; k < positions.size(); ++k)
          lines[k + 1].insert(lines[k + 1].end(), {with_error(positions[k].l0), with_error(positions[k].fvu)});
      }
    } else {
      lines[0].insert(lines[0].end(), {"mean L0", "mean FVU"});
      for (size_t k = 0; k < first.size(); ++k) {
        double l0 = 0, fvu = 0;
        for (const auto& sae : e.saes)
          l0 += sae.metrics.by_position[k].l0.value, fvu += sae.metrics.by_position[k].fvu.value;
        lines[k + 1].insert(lines[k + 1].end(), {fmt::format("{:.5g}", l0 / double(e.saes.size())),
                                                 fmt::format("{:.5g}", fvu / double(e.saes.size()))});
      }
    }
    out += "\n" + lay_out(lines);
  }
  const std::vector<PlaceSummary> places = by_place(e, targets);
  if (places.size() < 2) return out;
  std::vector<std::vector<std::string>> lines{{"place", "SAEs", "mean L0", "mean FVU"}};
  if (e.has_losses()) lines[0].insert(lines[0].end(), {"mean delta loss", "mean recovered"});
  for (const PlaceSummary& p : places) {
    lines.push_back({fmt::format("{}.{}", name(p.site), p.layer), std::to_string(p.saes), fmt::format("{:.5g}", p.l0),
                     fmt::format("{:.5g}", p.fvu)});
    if (e.has_losses())
      lines.back().insert(lines.back().end(),
                          {fmt::format("{:.5g}", p.delta_loss), fmt::format("{:.5g}", p.loss_recovered)});
  }
  return out + "\n" + lay_out(lines);
}

}  // namespace gsae
