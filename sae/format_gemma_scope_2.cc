// Gemma Scope 2's params.safetensors with config.json: the arrays of Gemma Scope in lower case.
// https://huggingface.co/google/gemma-scope-2; sae_lens/loading/pretrained_sae_loaders.py (gemma_3), which knows how
// the folders are named where there is no config.json.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <filesystem>

#include "io/safetensors.h"
#include "kernels/check.h"
#include "sae/sae_format.h"
#include "sae/sae_json.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

// Its word for each array of members().
constexpr std::array<const char*, 5> kNames{"w_enc", "w_dec", "b_enc", "b_dec", "threshold"};

std::vector<std::string> find(const std::string& dir) { return if_file(dir + "/params.safetensors"); }

bool takes(const std::string& file, std::string& path) {
  if (!file.ends_with(".safetensors") || !SafetensorsFile(file).find("w_enc")) return false;
  path = file;
  return true;
}

[[noreturn]] void refuse_kind(const std::string& path, const std::string& kind) {
  throw Error(fmt::format("{}: is a {}; only SAEs can be read", path, kind));
}

// gemma-scope-2-1b-pt/resid_post/layer_7_width_16k_l0_medium/params.safetensors. Its attn_out is the input of o_proj.
// kinds: whether the folders' names say what is no SAE.
SaeLocation location_of_folders(const std::string& path, bool kinds) {
  constexpr std::string_view kScope = "gemma-scope-2-", kCache = "models--google--", kLayer = "layer_";
  SaeLocation at;
  bool of_scope = false;
  for (const auto& part : fs::path(path)) {
    std::string folder = part.string();
    if (folder.starts_with(kCache)) folder.erase(0, kCache.size());
    if (folder.starts_with(kScope)) {
      at.model = "google/gemma-3-" + folder.substr(kScope.size());
      of_scope = true;
    }
    if (!of_scope) continue;
    for (const auto& [name, site] : {std::pair{"resid_post", "res"}, {"attn_out", "att"}, {"mlp_out", "mlp"}})
      if (folder == name || folder == std::string(name) + "_all") at.site = site;
    if (folder.starts_with(kLayer))
      std::from_chars(folder.data() + kLayer.size(), folder.data() + folder.size(), at.layer);
    for (const char* kind : {"transcoder", "crosscoder", "clt"})
      if (kinds && folder.starts_with(kind)) refuse_kind(path, folder);
  }
  return at;
}

SaeLocation locate(const std::string& path) {
  SaeLocation at;
  bool said_kind = false;
  if (const std::string config = folder_of(path) + "/config.json"; fs::exists(config)) {
    const nlohmann::json j = read_object(config);
    if (const std::string architecture = text_in(j, "architecture"); architecture != "jump_relu")
      refuse_architecture(config, architecture);
    const std::string in = text_in(j, "hf_hook_point_in"), out = text_in(j, "hf_hook_point_out");
    if (!out.empty() && out != in) refuse_kind(config, fmt::format("transcoder, from {} to {}", in, out));
    said_kind = !in.empty();
    at = location_of_hook(in);
    at.model = text_in(j, "model_name");
    if (!at.model.empty() && at.model.find('/') == at.model.npos) at.model = "google/" + at.model;
    if (const size_t old = at.model.find("gemma-v3"); old != at.model.npos) at.model.replace(old, 8, "gemma-3");
  }
  at.complete(location_of_folders(fs::absolute(path).string(), !said_kind));
  return at;
}

SaeFile list(const std::string& path) {
  SaeFile sae{.path = path, .location = locate(path)};
  const SaeShape shape = SafetensorsFile(path).get("w_enc").shape;
  check_w_enc(path, shape);
  sae.width = shape[0], sae.latents = shape[1];
  return sae;
}

LoadedSae load(const std::string& path) {
  const SaeLocation location = locate(path);
  const SafetensorsFile file(path);
  if (file.find("affine_skip_connection")) refuse_kind(path, "transcoder with a skip connection");
  LoadedSae sae = allocate_sae(path, file.get("w_enc").shape);
  const auto arrays = members(sae.params);
  for (size_t i = 0; i < arrays.size(); ++i) {
    const StoredTensor& stored = file.get(kNames[i]);
    expect_shape(path, kNames[i], stored.shape, shape_of(arrays[i].tensor));
    to_f32(arrays[i].tensor.data<float>(), stored);
  }
  check_values(sae);
  sae.location = location;
  return sae;
}

SaeDescription describe(const SaeFile& sae) {
  SaeDescription s;
  s.location = sae.location;
  return s;
}

}  // namespace

const SaeFormat kGemmaScope2{.name = "gemma-scope-2",
                             .files = "params.safetensors",
                             .find = find,
                             .takes = takes,
                             .list = list,
                             .load = load,
                             .describe = describe,
                             .write = nullptr};

}  // namespace gsae
