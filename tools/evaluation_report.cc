#include <fmt/format.h>

#include <cmath>

#include "tools/evaluate.h"

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

// fmt counts "±" as one column; so does this.
std::string pad(const std::string& text, size_t columns) { return fmt::format("{:>{}}", text, columns); }

}  // namespace

nlohmann::ordered_json to_json(const Estimate& e) {
  return {{"value", number(e.value)}, {"standard_error", number(e.error)}};
}

nlohmann::ordered_json to_json(const Evaluation& e) {
  nlohmann::ordered_json j{{"contexts", e.contexts}, {"context", e.context}};
  if (e.losses) j["predicted_tokens"] = e.predicted, j["lm_loss"] = to_json(e.lm_loss);
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
  if (e.losses) {
    j["spliced_loss"] = to_json(loss.spliced);
    j["delta_loss"] = to_json(loss.delta);
    j["delta_loss_zero_ablation"] = to_json(loss.delta_zero);
    j["delta_loss_mean_ablation"] = to_json(loss.delta_mean);
    j["loss_recovered"] = to_json(loss.recovered_zero);
    j["loss_recovered_mean_ablation"] = to_json(loss.recovered_mean);
  }
  std::vector<double> edges;
  for (int i = 0; i <= kDensityBins; ++i) edges.push_back(kLowestDensity + i * kDensityBinWidth);
  j["density"] = {{"log10_edges", edges}, {"latents", density_histogram(m.fired, m.tokens)}};
  return j;
}

std::string evaluation_table(const Evaluation& e, std::span<const std::string> names) {
  struct Row {
    const char *name, *formula;
    std::vector<std::string> cells;
  };
  std::vector<Row> rows;
  const auto add = [&](const char* name, const char* formula, auto&& cell) {
    Row row{name, formula, {}};
    for (const Evaluation::Sae& sae : e.saes) row.cells.push_back(cell(sae));
    rows.push_back(std::move(row));
  };
  using Sae = Evaluation::Sae;
  add("L0", "mean count of f > 0", [](const Sae& s) { return with_error(s.metrics.l0); });
  add("FVU", "sum |x_hat - x|^2 / sum |x - mean x|^2", [](const Sae& s) { return with_error(s.metrics.fvu); });
  add("MSE", "mean |x_hat - x|^2", [](const Sae& s) { return with_error(s.metrics.mse); });
  add("cosine", "mean x . x_hat / (|x| |x_hat|)", [](const Sae& s) { return with_error(s.metrics.cosine); });
  add("norm ratio", "mean |x_hat| / |x|", [](const Sae& s) { return with_error(s.metrics.norm_ratio); });
  add("dead latents", "never fired here", [](const Sae& s) {
    return fmt::format("{} ({:.2f} %)", s.metrics.dead(),
                       100.0 * double(s.metrics.dead()) / double(s.metrics.latents()));
  });
  if (e.losses) {
    add("delta loss", "L_spliced - L_clean", [](const Sae& s) { return with_error(s.loss.delta); });
    add("  of zeros", "L_zero - L_clean", [](const Sae& s) { return with_error(s.loss.delta_zero); });
    add("  of the mean", "L_mean - L_clean", [](const Sae& s) { return with_error(s.loss.delta_mean); });
    add("recovered", "(L_zero - L_spliced) / (L_zero - L_clean)",
        [](const Sae& s) { return with_error(s.loss.recovered_zero); });
    add("  of the mean", "(L_mean - L_spliced) / (L_mean - L_clean)",
        [](const Sae& s) { return with_error(s.loss.recovered_mean); });
  }

  std::string out;
  if (e.losses) {
    out += fmt::format("LM loss {} nats per token (perplexity {:.2f}), {} tokens in {} contexts of {}\n",
                       with_error(e.lm_loss), std::exp(e.lm_loss.value), e.predicted, e.contexts, e.context);
  }
  if (e.saes.empty()) return out;
  constexpr size_t kName = 14, kCell = 20;
  std::vector<size_t> columns;
  for (size_t i = 0; i < names.size(); ++i) columns.push_back(std::max(kCell, names[i].size()));
  out += fmt::format("{} tokens without BOS, EOS and padding; ± standard error over contexts\n\n{:<{}}",
                     e.saes[0].metrics.tokens, "", kName);
  for (size_t i = 0; i < names.size(); ++i) out += "  " + pad(names[i], columns[i]);
  for (const Row& row : rows) {
    out += fmt::format("\n{:<{}}", row.name, kName);
    for (size_t i = 0; i < row.cells.size(); ++i) out += "  " + pad(row.cells[i], columns[i]);
    out += fmt::format("   {}", row.formula);
  }
  return out + "\n";
}

}  // namespace gsae
