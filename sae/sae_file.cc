#include "sae/sae_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "io/json.h"
#include "io/npz.h"
#include "io/output_file.h"
#include "io/safetensors.h"
#include "kernels/checkf.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using Shape = std::vector<int64_t>;

constexpr size_t kLargestConfig = size_t{1} << 24;
constexpr int64_t kLargestSide = int64_t{1} << 28;  // of any array: products of two stay below 2^63

Json read_object(const fs::path& path) {
  Json j = read_json(path.string(), kLargestConfig);
  if (!j.is_object()) throw Error(fmt::format("{}: is not a JSON object", path.string()));
  return j;
}

// Fields are taken only if they have the type that is expected: these files come from elsewhere.
std::string text(const Json& j, const char* key) {
  const auto it = j.find(key);
  return it != j.end() && it->is_string() ? it->get<std::string>() : "";
}
int64_t integer(const Json& j, const char* key, int64_t otherwise) {
  const auto it = j.find(key);
  return it != j.end() && it->is_number_integer() ? it->get<int64_t>() : otherwise;
}

void check_w_enc(const std::string& path, const Shape& w_enc) {
  if (w_enc.size() != 2 || std::any_of(w_enc.begin(), w_enc.end(), [](int64_t n) { return n < 1 || n > kLargestSide; }))
    throw Error(fmt::format("{}: W_enc has shape ({}), not (d, latents)", path, fmt::join(w_enc, ", ")));
}

// Arena tensors for d and F, which the shape of W_enc gives.
LoadedSae allocate(const std::string& path, const Shape& w_enc) {
  check_w_enc(path, w_enc);
  Arena plan;
  SaeParameters(plan, w_enc[0], w_enc[1]);
  LoadedSae sae;
  sae.path = path;
  sae.memory = Buffer(Device::kCpu, plan.used());
  Arena arena(sae.memory);
  sae.params = SaeParameters(arena, w_enc[0], w_enc[1]);
  return sae;
}

void expect_shape(const std::string& path, const std::string& name, const Shape& got, const Tensor& want) {
  const Shape expected(want.dim.begin(), want.dim.begin() + want.rank);
  if (got != expected)
    throw Error(fmt::format("{}: {} has shape ({}), but W_enc asks for ({})", path, name, fmt::join(got, ", "),
                            fmt::join(expected, ", ")));
}

struct Member {
  const char* name;
  Tensor tensor;
};
std::array<Member, 5> members(const SaeParameters& p) {
  return {{{"W_enc", p.W_enc}, {"W_dec", p.W_dec}, {"b_enc", p.b_enc}, {"b_dec", p.b_dec}, {"threshold", p.threshold}}};
}

void check_values(const LoadedSae& sae) {
  for (const auto& [name, tensor] : members(sae.params)) {
    const float* v = tensor.data<float>();
    const int64_t n = tensor.size();
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(v[i])) throw Error(fmt::format("{}: {} is {} at element {}", sae.path, name, v[i], i));
  }
  const float* theta = sae.params.threshold.data<float>();
  for (int64_t i = 0; i < sae.params.latents(); ++i)
    if (theta[i] < 0)
      throw Error(fmt::format("{}: the threshold of latent {} is {}: it must not be negative", sae.path, i, theta[i]));
}

SaeLocation location_of_config(const Json& j) {
  return {.model = text(j, "model"), .site = text(j, "site"), .layer = integer(j, "layer", -1)};
}

void refuse_transcoder(const std::string& path) {
  if (is_transcoder_path(path))
    throw Error(
        fmt::format("{}: is a transcoder, which reconstructs another site than the one it reads; "
                    "only SAEs can be read",
                    path));
}

[[noreturn]] void miss_array(const std::string& path, const std::string& name, const std::vector<std::string>& names) {
  throw Error(fmt::format("{}: has no array {}: an SAE has W_enc, W_dec, b_enc, b_dec and threshold, this file {}",
                          path, name, names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "))));
}

// What config.json beside an npz says, if it is there, and where that says nothing its path.
SaeFile describe_npz(const std::string& path) {
  SaeFile file{.path = path, .location = {}};
  const fs::path config = fs::path(path).parent_path() / "config.json";
  if (fs::exists(config)) {
    const Json j = read_object(config);
    file.location = location_of_config(j);
    file.name = text(j, "sae");
    if (const auto l0 = j.find("l0"); l0 != j.end() && l0->is_number()) file.l0 = l0->get<double>();
  }
  file.location.complete(location_of_path(fs::absolute(path).string()));
  return file;
}

SaeFile list_npz_sae(const std::string& path) {
  refuse_transcoder(path);
  SaeFile file = describe_npz(path);
  std::vector<std::string> names;
  for (const NpzEntry& entry : list_npz(path)) {
    names.push_back(entry.name);
    if (entry.name != "W_enc") continue;
    check_w_enc(path, entry.header.shape);
    file.width = entry.header.shape[0], file.latents = entry.header.shape[1];
  }
  if (file.width == 0) miss_array(path, "W_enc", names);
  return file;
}

LoadedSae load_npz(const std::string& path) {
  refuse_transcoder(path);
  auto arrays = read_npz(path);
  std::vector<std::string> names;
  for (const auto& [name, array] : arrays) names.push_back(name);
  const auto get = [&](const std::string& name) -> NpzArray& {
    const auto it = arrays.find(name);
    if (it == arrays.end()) miss_array(path, name, names);
    return it->second;
  };
  LoadedSae sae = allocate(path, get("W_enc").shape);
  for (const auto& [name, tensor] : members(sae.params)) {
    NpzArray& array = get(name);
    expect_shape(path, name, array.shape, tensor);
    std::memcpy(tensor.data<float>(), array.values.data(), tensor.bytes());
    array = {};  // never the whole SAE twice
  }
  check_values(sae);
  sae.location = describe_npz(path).location;
  return sae;
}

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
  bool subtracts_b_dec = true;  // SAELens' default
  SaeLocation location;
};
SaeLensConfig read_saelens_config(const fs::path& dir) {
  const fs::path config = dir / "cfg.json";
  const Json j = read_object(config);
  const Json metadata = j.contains("metadata") && j["metadata"].is_object() ? j["metadata"] : j;
  const auto refuse = [&](const std::string& what) { throw Error(fmt::format("{}: {}", config.string(), what)); };

  const std::string architecture = j.contains("architecture") ? text(j, "architecture") : "standard";
  if (architecture != "jumprelu")
    refuse(fmt::format("architecture '{}' is not supported; only jumprelu is", architecture));
  const Json normalise = j.value("normalize_activations", Json(nullptr));
  const bool none = normalise.is_null() || normalise == "none" || normalise == false;
  if (!none)
    refuse(
        fmt::format("normalize_activations {} is not supported; fold it into the weights first "
                    "(fold_activation_norm_scaling_factor in SAELens)",
                    normalise.dump()));
  if (j.value("finetuning_scaling_factor", Json(false)) == true) refuse("finetuning_scaling_factor is not supported");
  const std::string hook_out = text(metadata, "hook_name_out");
  if (!hook_out.empty() && hook_out != text(metadata, "hook_name"))
    refuse(fmt::format("is a transcoder, from {} to {}; only SAEs can be read", text(metadata, "hook_name"), hook_out));

  const Json subtract = j.value("apply_b_dec_to_input", Json(true));
  if (!subtract.is_boolean()) refuse("apply_b_dec_to_input must be true or false");

  SaeLensConfig c{.subtracts_b_dec = subtract == true, .location = {}};
  c.location.model = text(metadata, "model_name");
  for (const char* key : {"hf_hook_name", "hook_name", "hook_point"})
    c.location.complete(location_of_hook(text(metadata, key)));
  c.location.complete(location_of_path(fs::absolute(dir).string()));
  return c;
}

SaeFile list_saelens(const fs::path& dir) {
  SaeFile sae{.path = dir.string(), .location = read_saelens_config(dir).location};
  const Shape shape = SafetensorsFile((dir / "sae_weights.safetensors").string()).get("W_enc").shape;
  check_w_enc(sae.path, shape);
  sae.width = shape[0], sae.latents = shape[1];
  return sae;
}

LoadedSae load_saelens(const fs::path& dir) {
  const SaeLensConfig config = read_saelens_config(dir);
  const SafetensorsFile file((dir / "sae_weights.safetensors").string());
  LoadedSae sae = allocate(dir.string(), file.get("W_enc").shape);
  for (const auto& [name, tensor] : members(sae.params)) {
    const bool logarithm = std::strcmp(name, "threshold") == 0 && !file.find(name) && file.find("log_threshold");
    const StoredTensor& stored = file.get(logarithm ? "log_threshold" : name);
    expect_shape(file.path(), stored.name, stored.shape, tensor);
    to_f32(tensor.data<float>(), stored);
    if (logarithm)  // checkpoints of older versions
      for (int64_t i = 0; i < tensor.size(); ++i) tensor.data<float>()[i] = std::exp(tensor.data<float>()[i]);
  }
  check_values(sae);
  if (config.subtracts_b_dec) fold_decoder_bias(sae.params);
  sae.location = config.location;
  return sae;
}

bool is_saelens(const fs::path& dir) {
  return fs::exists(dir / "cfg.json") && fs::exists(dir / "sae_weights.safetensors");
}

// Every SAE at or below `dir`. Folders are few: a run holds one level each for site, layer, width and L0.
void find_saes(const fs::path& dir, int depth, std::vector<fs::path>& found) {
  constexpr int kDeepest = 6;
  if (fs::exists(dir / "params.npz")) found.push_back(dir / "params.npz");
  else if (is_saelens(dir)) found.push_back(dir);
  if (depth == kDeepest) return;
  std::vector<fs::path> folders;
  std::error_code ignored;  // a folder that may not be read holds nothing for us
  for (const auto& entry : fs::directory_iterator(dir, ignored))
    if (entry.is_directory(ignored) && entry.path().filename() != "checkpoints") folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) find_saes(folder, depth + 1, found);
}

std::vector<fs::path> paths_of_saes(const std::string& path) {
  std::vector<fs::path> found;
  if (fs::is_directory(path)) {
    find_saes(path, 0, found);
    if (found.empty())
      throw Error(
          fmt::format("{}: holds no SAE: neither params.npz nor cfg.json with sae_weights.safetensors, "
                      "here or in the folders below",
                      path));
  } else if (!fs::exists(path)) {
    throw Error(
        fmt::format("{}: no such file or folder; --sae takes a params.npz, a SAELens folder, or a folder "
                    "that a training run wrote",
                    path));
  } else {
    const std::string name = fs::path(path).filename().string();
    if (name == "cfg.json" || name == "sae_weights.safetensors") found.push_back(fs::absolute(path).parent_path());
    else if (is_npz(path)) found.push_back(path);
    else throw Error(fmt::format("{}: is not an npz file", path));
  }
  return found;
}

LoadedSae load(const fs::path& p) { return fs::is_directory(p) ? load_saelens(p) : load_npz(p.string()); }

}  // namespace

std::vector<LoadedSae> load_saes(const std::string& path) {
  std::vector<LoadedSae> saes;
  for (const fs::path& p : paths_of_saes(path)) saes.push_back(load(p));
  return saes;
}

std::vector<SaeFile> list_saes(const std::string& path) {
  std::vector<SaeFile> saes;
  for (const fs::path& p : paths_of_saes(path))
    saes.push_back(fs::is_directory(p) ? list_saelens(p) : list_npz_sae(p.string()));
  return saes;
}

LoadedSae load_sae(const SaeFile& file) { return load(file.path); }

void move_to_device(Context& ctx, LoadedSae& sae) {
  Buffer memory;
  const SaeParameters params = on_device(ctx, sae.params, memory);
  if (memory.size() > 0) sae.memory = std::move(memory);
  sae.params = params;
}

void write_sae_folder(const std::string& dir, const SaeParameters& params, const SaeDescription& description) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw Error(fmt::format("{}: {}", dir, error.message()));
  std::vector<NpzMember> arrays;
  for (const auto& [name, tensor] : members(params))
    arrays.push_back({name, Shape(tensor.dim.begin(), tensor.dim.begin() + tensor.rank), tensor.data<float>()});
  write_npz(dir + "/params.npz", arrays);
  write_sae_description(dir, params, description);
}

void write_sae_description(const std::string& dir, const SaeParameters& params, const SaeDescription& description) {
  const SaeDescription& s = description;
  nlohmann::ordered_json j{{"architecture", "jumprelu"}, {"dtype", "float32"}};
  const auto put = [&](const char* key, auto value) {
    if (value != decltype(value){}) j[key] = value;
  };
  put("sae", s.name);
  put("model", s.location.model);
  put("site", s.location.site);
  if (s.location.layer >= 0) j["layer"] = s.location.layer;
  j["width"] = params.width();
  j["latents"] = params.latents();
  put("preset", s.preset);
  put("l0", s.l0);
  put("lambda", s.lambda);
  put("average_l0", s.average_l0);
  put("tokens", s.tokens);
  j["seed"] = s.seed;
  put("input_scale", s.input_scale);
  j["version"] = GSAE_VERSION;
  write_file(dir + "/config.json", j.dump(1) + "\n");
}

}  // namespace gsae
