// SAELens' folders: cfg.json, sae_weights.safetensors, sparsity.safetensors.
// https://github.com/decoderesearch/SAELens, sae_lens/saes/sae.py and jumprelu_sae.py
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "io/output_file.h"
#include "io/safetensors.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "sae/sae_format.h"
#include "sae/sae_json.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr double kNeverFired = 1e-10;        // is added to a density before its logarithm
constexpr const char* kVersion = "6.54.12";  // of SAELens, whose fields cfg.json has

// b_enc -= b_dec W_enc, summed in f64, in blocks of latents
void fold_decoder_bias(const SaeParameters& p) {
  const int64_t d = p.width(), latents = p.latents();
  const float *b_dec = p.b_dec.data<float>(), *W_enc = p.W_enc.data<float>();
  float* b_enc = p.b_enc.data<float>();
  constexpr int64_t kBlock = 512;
  parallel_for(latents, kBlock, [&](int64_t begin, int64_t end) {
    double sum[kBlock] = {};
    for (int64_t c = 0; c < d; ++c) {
      const double b = b_dec[c];
      const float* row = W_enc + c * latents + begin;
      for (int64_t i = 0; i < end - begin; ++i) sum[i] += b * row[i];
    }
    for (int64_t i = begin; i < end; ++i) b_enc[i] = static_cast<float>(b_enc[i] - sum[i - begin]);
  });
}

// SAELens names what it does in cfg.json; before version 6 the metadata lay beside the rest.
// https://github.com/jbloomAus/SAELens, sae_lens/saes/jumprelu_sae.py
struct SaeLensConfig {
  bool subtracts_b_dec = true;     // SAELens' default
  int64_t width = 0, latents = 0;  // 0: not said
  SaeDescription description;      // without the densities
};
SaeLensConfig read_config(const std::string& dir) {
  const std::string config = dir + "/cfg.json";
  const Json j = read_object(config);
  const Json metadata = j.contains("metadata") && j["metadata"].is_object() ? j["metadata"] : j;
  const auto refuse = [&](const std::string& what) { throw Error(fmt::format("{}: {}", config, what)); };

  const std::string architecture = j.contains("architecture") ? text_in(j, "architecture") : "standard";
  if (architecture != "jumprelu") refuse_architecture(config, architecture);
  const Json normalise = j.value("normalize_activations", Json(nullptr));
  const bool none = normalise.is_null() || normalise == "none" || normalise == false;
  if (!none)
    refuse(
        fmt::format("normalize_activations {} is not supported; fold it into the weights first "
                    "(fold_activation_norm_scaling_factor in SAELens)",
                    normalise.dump()));
  if (j.value("finetuning_scaling_factor", Json(false)) == true) refuse("finetuning_scaling_factor is not supported");
  const std::string hook_out = text_in(metadata, "hook_name_out");
  if (!hook_out.empty() && hook_out != text_in(metadata, "hook_name"))
    refuse(
        fmt::format("is a transcoder, from {} to {}; only SAEs can be read", text_in(metadata, "hook_name"), hook_out));

  const Json subtract = j.value("apply_b_dec_to_input", Json(true));
  if (!subtract.is_boolean()) refuse("apply_b_dec_to_input must be true or false");

  SaeLensConfig c{.subtracts_b_dec = subtract == true,
                  .width = integer_in(j, "d_in", 0),
                  .latents = integer_in(j, "d_sae", 0),
                  .description = {}};
  SaeDescription& s = c.description;
  s.location.model = text_in(metadata, "model_name");
  SaeLocation unknown;
  for (const char* key : {"hf_hook_name", "hook_name", "hook_point"}) {
    const SaeLocation said = location_of_hook(text_in(metadata, key));
    (said.site.empty() ? unknown : s.location).complete(said);
  }
  s.location.complete(unknown);
  s.location.complete(location_of_path(fs::absolute(dir).string()));
  s.context = integer_in(metadata, "context_size", 0), s.tokens = integer_in(metadata, "training_tokens", 0);
  s.average_l0 = number_in(metadata, "l0");
  return c;
}

std::string parameters(const std::string& dir) { return dir + "/sae_weights.safetensors"; }

// An Error unless W_enc (d, latents) is what cfg.json says, if it does.
void check_sizes(const std::string& dir, const SaeLensConfig& config, const SaeShape& W_enc) {
  check_w_enc(dir, W_enc);
  const auto agree = [&](const char* key, int64_t said, int64_t is) {
    if (said > 0 && said != is)
      throw Error(fmt::format("{}/cfg.json: {} is {}, but W_enc of sae_weights.safetensors is ({}, {})", dir, key, said,
                              W_enc[0], W_enc[1]));
  };
  agree("d_in", config.width, W_enc[0]);
  agree("d_sae", config.latents, W_enc[1]);
}

SaeFile list(const std::string& dir) {
  const SaeLensConfig config = read_config(dir);
  SaeFile sae{.path = dir, .location = config.description.location};
  const SaeShape shape = SafetensorsFile(parameters(dir)).get("W_enc").shape;
  check_sizes(dir, config, shape);
  sae.width = shape[0], sae.latents = shape[1];
  return sae;
}

LoadedSae load(const std::string& dir) {
  const SaeLensConfig config = read_config(dir);
  const SafetensorsFile file(parameters(dir));
  check_sizes(dir, config, file.get("W_enc").shape);
  LoadedSae sae = allocate_sae(dir, file.get("W_enc").shape);
  for (const auto& [name, tensor] : members(sae.params)) {
    const bool logarithm = std::strcmp(name, "threshold") == 0 && !file.find(name) && file.find("log_threshold");
    const StoredTensor& stored = file.get(logarithm ? "log_threshold" : name);
    expect_shape(file.path(), stored.name, stored.shape, shape_of(tensor));
    to_f32(tensor.data<float>(), stored);
    if (logarithm)  // checkpoints of older versions
      for (int64_t i = 0; i < tensor.size(); ++i) tensor.data<float>()[i] = std::exp(tensor.data<float>()[i]);
  }
  check_values(sae);
  if (config.subtracts_b_dec) {
    fold_decoder_bias(sae.params);
    check_values(sae);
  }
  sae.location = config.description.location;
  return sae;
}

// sparsity.safetensors: log10 of each latent's density, as write() has it.
SaeDescription describe(const SaeFile& sae) {
  SaeDescription s = read_config(sae.path).description;
  const std::string path = sae.path + "/sparsity.safetensors";
  if (if_file(path).empty()) return s;
  const SafetensorsFile file(path);
  const StoredTensor& stored = file.get("sparsity");
  expect_shape(path, "sparsity", stored.shape, {sae.latents});
  std::vector<float> sparsity(static_cast<size_t>(sae.latents));
  to_f32(sparsity.data(), stored);
  for (const float v : sparsity) {
    const double density = std::pow(10.0, double(v)) - kNeverFired;
    if (!(density < 1.001)) throw Error(fmt::format("{}: {} is no logarithm of a density", path, v));
    s.density.push_back(static_cast<float>(std::clamp(density, 0.0, 1.0)));
  }
  return s;
}

std::vector<std::string> find(const std::string& dir) {
  if (if_file(dir + "/cfg.json").empty() || if_file(parameters(dir)).empty()) return {};
  return {dir};
}

bool takes(const std::string& file, std::string& path) {
  const std::string name = fs::path(file).filename().string();
  if (name != "cfg.json" && name != "sae_weights.safetensors") return false;
  path = fs::absolute(file).parent_path().string();
  return true;
}

void write_safetensors(const std::string& path, const std::vector<SaeMember>& tensors) {
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [name, tensor] : tensors) declared.push_back({name, "F32", shape_of(tensor)});
  SafetensorsWriter file(path, declared);
  for (const auto& [name, tensor] : tensors) file.append(name, tensor.ptr, tensor.bytes());
  file.close();
}

void write(const std::string& dir, const SaeParameters& params, const SaeDescription& s) {
  require_place(s, kSaeLens.name);
  const auto all = members(params);
  write_safetensors(parameters(dir), {all.begin(), all.end()});
  if (!s.density.empty()) {  // as SAELens' trainer keeps it
    std::vector<float> sparsity(s.density.size());
    std::transform(s.density.begin(), s.density.end(), sparsity.begin(),
                   [](float density) { return std::log10(density + static_cast<float>(kNeverFired)); });
    write_safetensors(dir + "/sparsity.safetensors",
                      {{"sparsity", view(sparsity.data(), {static_cast<int64_t>(sparsity.size())})}});
  }
  nlohmann::ordered_json metadata{{"sae_lens_version", kVersion},
                                  {"sae_lens_training_version", nullptr},
                                  {"model_name", s.location.model},
                                  {"hook_name", transformer_lens_hook(s.location)},
                                  {"hook_head_index", nullptr},
                                  {"hf_hook_name", transformers_hook(s.location)},
                                  {"prepend_bos", true},
                                  {"exclude_special_tokens", true}};
  if (s.context > 0) metadata["context_size"] = s.context;
  if (s.average_l0 > 0) metadata["l0"] = s.average_l0;
  if (s.tokens > 0) metadata["training_tokens"] = s.tokens;
  metadata["trained_with"] = std::string("gemma_sae ") + GSAE_VERSION;
  const nlohmann::ordered_json config{{"d_in", params.width()},
                                      {"d_sae", params.latents()},
                                      {"dtype", "float32"},
                                      {"device", "cpu"},
                                      {"apply_b_dec_to_input", false},
                                      {"normalize_activations", "none"},
                                      {"reshape_activations", s.location.site == "att" ? "hook_z" : "none"},
                                      {"metadata", metadata},
                                      {"architecture", "jumprelu"}};
  write_file(dir + "/cfg.json", config.dump(1) + "\n");
}

}  // namespace

const SaeFormat kSaeLens{.name = "saelens",
                         .files = "cfg.json with sae_weights.safetensors",
                         .find = find,
                         .takes = takes,
                         .list = list,
                         .load = load,
                         .describe = describe,
                         .parameters = parameters,
                         .write = write};

}  // namespace gsae
