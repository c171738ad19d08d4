#include "tools/neuronpedia.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "io/output_file.h"

namespace gsae {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

constexpr size_t kLatentsOfABatch = 128;  // SAEDashboard's default

// As there: three decimals.
double rounded(double x) { return std::round(x * 1000) / 1000; }

Json pieces(const std::vector<int32_t>& tokens, const TokenTexts& texts) {
  Json strings = Json::array();
  for (const int32_t token : tokens) strings.push_back(texts.piece(token));
  return strings;
}

Json activation(const ContextExample& e, double bin_min, double bin_max, double bin_contains, const TokenTexts& texts) {
  Json values = Json::array();
  for (const float v : e.values) values.push_back(rounded(v));
  return {{"bin_min", rounded(bin_min)},
          {"bin_max", rounded(bin_max)},
          {"bin_contains", bin_contains},
          {"tokens", pieces(e.tokens, texts)},
          {"values", values},
          {"qualifying_token_index", e.position - e.begin}};
}

Json feature(const LatentDashboard& d, const SaeDashboards& sae, const DashboardPass& pass) {
  const LatentSummary& s = d.summary;
  const TokenTexts& texts = *pass.texts;
  Json f{{"feature_index", d.latent}};
  Json indices = Json::array(), values = Json::array(), shares = Json::array();
  for (const Coordinate& c : d.coordinates)
    indices.push_back(c.index), values.push_back(rounded(c.value)), shares.push_back(rounded(c.share));
  f["neuron_alignment_indices"] = indices;
  f["neuron_alignment_values"] = values;
  f["neuron_alignment_l1"] = shares;
  for (const char* other : {"correlated_neurons", "correlated_features"})
    for (const char* what : {"indices", "l1", "pearson"}) f[fmt::format("{}_{}", other, what)] = Json::array();
  for (const auto& [side, effects] : {std::pair("neg", &d.logits.bottom), std::pair("pos", &d.logits.top)}) {
    Json strings = Json::array(), logits = Json::array();
    for (const TokenEffect& e : *effects) strings.push_back(texts.piece(e.token)), logits.push_back(rounded(e.logit));
    f[fmt::format("{}_str", side)] = strings;
    f[fmt::format("{}_values", side)] = logits;
  }
  f["frac_nonzero"] = sae.tokens > 0 ? double(s.count) / double(sae.tokens) : 0;

  Json centres = Json::array(), heights = Json::array();
  const auto last = std::find_if(s.histogram.rbegin(), s.histogram.rend(), [](int64_t n) { return n > 0; });
  const auto bins = s.histogram.rend() - last;
  for (int64_t b = 0; b < bins; ++b) {
    centres.push_back(rounded(s.scale * (double(b) + 0.5) / Examples::kBins));
    heights.push_back(s.histogram[static_cast<size_t>(b)]);
  }
  f["freq_hist_data_bar_values"] = centres;
  f["freq_hist_data_bar_heights"] = heights;
  centres = heights = Json::array();
  const double width = (double(d.logits.highest) - d.logits.lowest) / LogitAttribution::kBins;
  for (int b = 0; b < LogitAttribution::kBins && !d.logits.top.empty(); ++b) {
    centres.push_back(rounded(d.logits.lowest + width * (b + 0.5)));
    heights.push_back(d.logits.histogram[static_cast<size_t>(b)]);
  }
  f["logits_hist_data_bar_heights"] = heights;
  f["logits_hist_data_bar_values"] = centres;
  f["n_prompts_total"] = sae.contexts;
  f["n_tokens_in_prompt"] = sae.context;
  std::string names;
  for (const std::string& file : pass.data) names += (names.empty() ? "" : ",") + fs::path(file).filename().string();
  f["dataset"] = names;
  f["decoder_weights_dist"] = Json::array();
  Json activations = Json::array();
  for (const ContextExample& e : d.top) activations.push_back(activation(e, -1, s.max(), -1, texts));
  for (const ActivationBand& band : d.bands)
    for (const ContextExample& e : band.examples)
      activations.push_back(activation(e, band.low, band.high, double(band.count) / double(sae.tokens), texts));
  f["activations"] = activations;
  return f;
}

// "google/gemma-2-2b@main", "/models/gemma-2-2b/" and the hub cache's ".../models--google--gemma-2-2b/snapshots/0f3c"
// -> "gemma-2-2b"
std::string short_name(const std::string& model) {
  constexpr std::string_view kCached = "models--";
  std::error_code ignored;
  fs::path folder = fs::absolute(model, ignored).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  std::string name = folder.filename().string();
  for (const fs::path& part : folder)
    if (const std::string cached = part.string(); cached.starts_with(kCached)) {
      const size_t owner = cached.find("--", kCached.size());
      name = cached.substr(owner == cached.npos ? kCached.size() : owner + 2);
    }
  return name.substr(0, name.find('@'));
}

}  // namespace

std::string neuronpedia_model(const std::string& model) {
  const std::string name = short_name(model);
  if (name.empty() || name == "/")
    throw Error(
        fmt::format("--model {}: has no name that Neuronpedia could know it by; give a folder that has one", model));
  return name;
}

std::string neuronpedia_set(std::string name) {
  std::erase_if(name, [](char c) { return c == '(' || c == ')'; });
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '/' || c == ' '; }, '-');
  return name;
}

Json neuronpedia_batch(const DashboardPass& pass, size_t sae, size_t begin, size_t end, const std::string& set) {
  const EvaluationTarget& target = pass.targets.at(sae);
  Json batch{{"model_id", neuronpedia_model(pass.model)},
             {"layer", target.layer},
             {"sae_set", set},
             {"sae_id_suffix", nullptr},
             {"features", Json::array()}};
  const SaeDashboards& d = pass.saes.at(sae);
  for (size_t i = begin; i < end; ++i) batch["features"].push_back(feature(d.latents.at(i), d, pass));
  return batch;
}

int64_t write_neuronpedia(const DashboardPass& pass, size_t sae, const std::string& dir, const std::string& set) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw Error(fmt::format("{}: {}", dir, error.message()));
  const size_t count = pass.saes.at(sae).latents.size();
  int64_t files = 0;
  for (size_t begin = 0; begin < count; begin += kLatentsOfABatch, ++files) {
    const Json j = neuronpedia_batch(pass, sae, begin, std::min(count, begin + kLatentsOfABatch), set);
    // "replace": the name of a file need not be UTF-8
    write_file(fmt::format("{}/batch-{}.json", dir, files), j.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  return files;
}

}  // namespace gsae
