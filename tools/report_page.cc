#include "tools/report_page.h"

#include <fmt/format.h>

#include <cmath>
#include <unordered_map>

#include "tools/report_assets.h"

namespace gsae {

using Json = nlohmann::ordered_json;

namespace {

// What is shown has no more digits.
double rounded(double x, int digits = 4) { return std::isfinite(x) ? std::stod(fmt::format("{:.{}g}", x, digits)) : 0; }

// Each token's string once, by the order in which they are met.
class TokenTable {
 public:
  int64_t id(const TokenTexts& texts, int32_t token) {
    const std::string text = texts.text(token);
    const auto [at, is_new] = ids_.try_emplace(text, static_cast<int64_t>(ids_.size()));
    if (is_new) strings_.push_back(text);
    return at->second;
  }
  const Json& strings() const { return strings_; }

 private:
  std::unordered_map<std::string, int64_t> ids_;
  Json strings_ = Json::array();
};

// [value, context, position, first position, [tokens], [place, value, place, value, ...] where it is active]
Json example_json(const ContextExample& e, const TokenTexts& texts, TokenTable& table) {
  Json tokens = Json::array(), values = Json::array();
  for (size_t t = 0; t < e.tokens.size(); ++t) {
    tokens.push_back(table.id(texts, e.tokens[t]));
    if (e.values[t] > 0) values.push_back(t), values.push_back(rounded(e.values[t], 3));
  }
  return {rounded(e.value), e.context, e.position, e.begin, tokens, values};
}

Json examples_json(const std::vector<ContextExample>& examples, const TokenTexts& texts, TokenTable& table) {
  Json all = Json::array();
  for (const ContextExample& e : examples) all.push_back(example_json(e, texts, table));
  return all;
}

Json effects_json(const std::vector<TokenEffect>& effects, const TokenTexts& texts, TokenTable& table) {
  Json all = Json::array();
  for (const TokenEffect& e : effects) all.push_back({table.id(texts, e.token), rounded(e.logit, 3)});
  return all;
}

Json latent_json(const LatentDashboard& d, const TokenTexts& texts, TokenTable& table) {
  Json bands = Json::array(), near = Json::array();
  for (const ActivationBand& b : d.bands)
    bands.push_back({{"low", rounded(b.low)},
                     {"high", rounded(b.high)},
                     {"count", b.count},
                     {"examples", examples_json(b.examples, texts, table)}});
  for (const Neighbour& n : d.neighbours) near.push_back({n.latent, rounded(n.cosine, 3)});
  const LatentSummary& s = d.summary;
  return {{"id", d.latent},
          {"count", s.count},
          {"max", rounded(s.max())},
          {"mean", s.count > 0 ? rounded(s.sum / double(s.count)) : 0},
          {"scale", s.scale},
          {"histogram", s.histogram},
          {"top", examples_json(d.top, texts, table)},
          {"bands", bands},
          {"raises", effects_json(d.logits.top, texts, table)},
          {"lowers", effects_json(d.logits.bottom, texts, table)},
          {"near", near}};
}

Json seen_json(const SaeDashboards& d, const DashboardPass& pass) {
  int64_t dead = 0, dense = 0;
  for (const int64_t n : d.fired) dead += n == 0, dense += double(n) > kDense * double(d.tokens);
  std::vector<double> edges;
  for (int i = 0; i <= kDensityBins; ++i) edges.push_back(kLowestDensity + i * kDensityBinWidth);
  return {{"tokens", d.tokens},
          {"contexts", d.contexts},
          {"context", d.context},
          {"split", pass.split},
          {"dead", dead},
          {"dense", dense},
          {"density", {{"log10_edges", edges}, {"latents", density_histogram(d.fired, d.tokens)}}}};
}

Json sae_json(const SaeResult& sae, size_t run, const DashboardPass* pass, size_t of_pass, TokenTable& table) {
  Json j{{"run", run}, {"name", sae.name}};
  const Json& t = sae.training;
  if (t.is_object()) {
    for (const char* key : {"site", "layer", "width", "latents"}) j[key] = t.value(key, Json());
    if (t.contains("recipe")) j["target_l0"] = t["recipe"].value("target_l0", Json());
  }
  if (!sae.file.empty()) {
    const SaeFile& f = sae.file[0];
    j["path"] = f.path, j["width"] = f.width, j["latents"] = f.latents;
    if (!f.location.site.empty()) j["site"] = f.location.site;
    if (f.location.layer >= 0) j["layer"] = f.location.layer;
    if (f.l0 > 0) j["target_l0"] = f.l0;
  }
  j["curves"] = sae.curves;
  j["evaluation"] = sae.evaluation;
  j["seen"] = nullptr;
  j["dashboards"] = Json::array();
  if (!pass) return j;
  const EvaluationTarget& target = pass->targets[of_pass];
  const SaeDashboards& d = pass->saes[of_pass];
  j["site"] = name(target.site), j["layer"] = target.layer;
  j["seen"] = seen_json(d, *pass);
  for (const LatentDashboard& latent : d.latents) j["dashboards"].push_back(latent_json(latent, *pass->texts, table));
  return j;
}

Json run_json(const RunResults& r, const DashboardPass* pass) {
  Json j{{"name", r.name}, {"path", r.path}, {"is_run", r.is_run}, {"finished", r.finished}, {"notes", r.notes}};
  Json settings = Json::object();
  if (r.config.is_object())
    for (const char* key : {"model", "data", "tokens", "steps", "batch", "context", "preset", "precision", "seed"})
      if (r.config.contains(key)) settings[key] = r.config[key];
  if (!settings.contains("model") && pass) settings["model"] = pass->model;
  j["settings"] = settings;
  return j;
}

std::string replace_mark(std::string_view text, std::string_view mark, std::string_view by) {
  const size_t at = text.find(mark);
  std::string out(text.substr(0, at));
  out += by;
  out += text.substr(at + mark.size());
  return out;
}

}  // namespace

std::string json_for_html(const Json& json) {
  // "replace": a path need not be UTF-8
  std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace), safe;
  safe.reserve(text.size());
  for (const char c : text) {
    if (c == '<') safe += "\\u003c";
    else safe += c;
  }
  return safe;
}

std::string report_page(const std::vector<ReportPart>& parts) {
  Json page{{"version", GSAE_VERSION}, {"tokens", Json::array()}, {"runs", Json::array()}, {"saes", Json::array()}};
  TokenTable table;
  for (size_t r = 0; r < parts.size(); ++r) {
    const DashboardPass* pass = parts[r].pass.empty() ? nullptr : parts[r].pass.data();
    page["runs"].push_back(run_json(parts[r].results, pass));
    size_t of_pass = 0;
    for (const SaeResult& sae : parts[r].results.saes) {
      const DashboardPass* seen = sae.file.empty() ? nullptr : pass;
      page["saes"].push_back(sae_json(sae, r, seen, of_pass, table));
      if (seen) ++of_pass;
    }
  }
  page["tokens"] = table.strings();
  std::string html = replace_mark(report_assets::kPage, "/*STYLE*/", report_assets::kStyle);
  html = replace_mark(
      html, "/*SCRIPT*/",
      std::string(report_assets::kCharts) + std::string(report_assets::kLatents) + std::string(report_assets::kApp));
  return replace_mark(html, "/*DATA*/", json_for_html(page));
}

}  // namespace gsae
