// dictionary_learning's folders: ae.pt, the state dict of a JumpReluAutoEncoder, with config.json. SAEBench reads them
// too. https://github.com/saprmarks/dictionary_learning, dictionary.py and utils.py (0.1.0): encode() subtracts no
// b_dec unless apply_b_dec_to_input is set, which no file says and from_pretrained() leaves false: what is stored is
// folded.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <filesystem>

#include "io/output_file.h"
#include "io/torch_zip.h"
#include "kernels/check.h"
#include "sae/sae_format.h"
#include "sae/sae_json.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

constexpr const char* kClass = "JumpReluAutoEncoder";

// submodule_name of our own files; elsewhere only the first two say the same place.
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kSubmodules{{{"resid_post", "res"},
                                                                                    {"resid_pre", "pre"},
                                                                                    {"attn_z", "att"},
                                                                                    {"attn_out_normed", "attn_out"},
                                                                                    {"mlp_in_normed", "mlp_in"},
                                                                                    {"mlp_out_normed", "mlp"}}};

std::vector<std::string> find(const std::string& dir) { return if_file(dir + "/ae.pt"); }

bool takes(const std::string& file, std::string& path) {
  const std::string extension = fs::path(file).extension().string();
  if (extension != ".pt" && extension != ".pth") return false;
  path = file;
  return true;
}

// "resid_post_layer_20"; another lies elsewhere, an empty one says nothing.
SaeLocation location_of_submodule(std::string_view name) {
  constexpr std::string_view kLayer = "_layer_";
  SaeLocation at;
  const size_t end = name.find(kLayer);
  for (const auto& [submodule, site] : kSubmodules)
    if (end != name.npos && name.substr(0, end) == submodule) at.site = site;
  if (at.site.empty()) return {.model = {}, .site = {}, .layer = -1, .elsewhere = std::string(name)};
  const std::string_view digits = name.substr(end + kLayer.size());
  std::from_chars(digits.data(), digits.data() + digits.size(), at.layer);
  return at;
}

// What config.json says, if it is there: a checkpoint alone is taken for what its arrays are.
SaeDescription read_config(const std::string& path) {
  SaeDescription s;
  SaeLocation& at = s.location;
  if (const std::string config = folder_of(path) + "/config.json"; fs::exists(config)) {
    const nlohmann::json j = read_object(config);
    const auto trainer = j.find("trainer");
    if (trainer == j.end() || !trainer->is_object())
      throw Error(fmt::format("{}: has no \"trainer\", so it is no config.json of dictionary_learning", config));
    if (const std::string name = text_in(*trainer, "dict_class"); name != kClass) refuse_architecture(config, name);
    at = location_of_submodule(text_in(*trainer, "submodule_name"));
    at.model = text_in(*trainer, "lm_name");
    if (at.layer < 0 && at.elsewhere.empty()) at.layer = integer_in(*trainer, "layer", -1);
    s.l0 = number_in(*trainer, "target_l0"), s.lambda = number_in(*trainer, "sparsity_penalty");
    if (const int64_t seed = integer_in(*trainer, "seed", -1); seed >= 0) s.seed = static_cast<uint64_t>(seed);
    if (const auto buffer = j.find("buffer"); buffer != j.end() && buffer->is_object())
      s.context = integer_in(*buffer, "ctx_len", 0);
  }
  at.complete(location_of_path(fs::absolute(path).string()));
  return s;
}

const PickledTensor& get(const TorchFile& file, const std::string& name) {
  if (const auto it = file.tensors().find(name); it != file.tensors().end()) return it->second;
  std::vector<std::string> names;
  for (const auto& [other, t] : file.tensors()) names.push_back(other);
  miss_array(file.path(), name, names);
}

SaeFile list(const std::string& path) {
  const SaeDescription s = read_config(path);
  SaeFile sae{.path = path, .location = s.location, .l0 = s.l0};
  const TorchFile file(path);
  const SaeShape& shape = get(file, "W_enc").shape;
  check_w_enc(path, shape);
  sae.width = shape[0], sae.latents = shape[1];
  return sae;
}

LoadedSae load(const std::string& path) {
  const SaeLocation location = read_config(path).location;
  TorchFile file(path);
  LoadedSae sae = allocate_sae(path, get(file, "W_enc").shape);
  for (const auto& [name, tensor] : members(sae.params)) {
    const PickledTensor& stored = get(file, name);
    expect_shape(path, name, stored.shape, shape_of(tensor));
    file.read(tensor.data<float>(), stored);
  }
  check_values(sae);
  sae.location = location;
  return sae;
}

SaeDescription describe(const SaeFile& sae) { return read_config(sae.path); }

void write(const std::string& dir, const SaeParameters& params, const SaeDescription& s) {
  require_place(s, kDictionaryLearning.name);
  std::vector<TorchMember> tensors;
  for (const auto& [name, tensor] : members(params)) tensors.push_back({name, shape_of(tensor), tensor.data<float>()});
  write_torch(dir + "/ae.pt", tensors);

  std::string submodule;
  for (const auto& [name, site] : kSubmodules)
    if (s.location.site == site) submodule = fmt::format("{}_layer_{}", name, s.location.layer);
  nlohmann::ordered_json trainer{{"trainer_class", "JumpReluTrainer"}, {"dict_class", kClass},
                                 {"activation_dim", params.width()},   {"dict_size", params.latents()},
                                 {"layer", s.location.layer},          {"lm_name", s.location.model},
                                 {"submodule_name", submodule},        {"device", "cpu"}};
  if (s.seed) trainer["seed"] = *s.seed;
  if (s.l0 > 0) trainer["target_l0"] = s.l0;
  if (s.lambda > 0) trainer["sparsity_penalty"] = s.lambda;
  trainer["trained_with"] = std::string("gemma_sae ") + GSAE_VERSION;
  nlohmann::ordered_json buffer{{"d_submodule", params.width()},
                                {"io", s.location.site == "att" || s.location.site == "pre" ? "in" : "out"}};
  buffer["ctx_len"] = s.context > 0 ? nlohmann::ordered_json(s.context) : nullptr;  // which SAELens asks for
  write_file(dir + "/config.json", nlohmann::ordered_json{{"trainer", trainer}, {"buffer", buffer}}.dump(1) + "\n");
}

}  // namespace

const SaeFormat kDictionaryLearning{.name = "dictionary-learning",
                                    .files = "ae.pt",
                                    .find = find,
                                    .takes = takes,
                                    .list = list,
                                    .load = load,
                                    .describe = describe,
                                    .write = write};

}  // namespace gsae
