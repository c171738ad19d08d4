// circuit-tracer's layer_20.safetensors: a single-layer transcoder, here with the same input and output.
// https://github.com/decoderesearch/circuit-tracer, circuit_tracer/transcoder/single_layer_transcoder.py (0.5.0):
// load_relu_transcoder() and to_safetensors(). W_enc is transposed, the threshold that of its activation function.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "io/safetensors.h"
#include "kernels/check.h"
#include "sae/sae_format.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

constexpr const char* kThreshold = "activation_function.threshold";
constexpr int64_t kBlock = 32;  // latents that are transposed at a time

// layer_20.safetensors -> 20; -1: not such a name
int64_t layer_of(const std::string& path) {
  constexpr std::string_view kLayer = "layer_", kExtension = ".safetensors";
  const std::string name = fs::path(path).filename().string();
  if (!name.starts_with(kLayer) || !name.ends_with(kExtension)) return -1;
  const char *begin = name.data() + kLayer.size(), *end = name.data() + name.size() - kExtension.size();
  int64_t layer = -1;
  const auto [stop, error] = std::from_chars(begin, end, layer);
  return error == std::errc() && stop == end ? layer : -1;
}

// layer_0.safetensors, layer_1.safetensors, ...: a set has one for each layer.
std::vector<std::string> find(const std::string& dir) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code ignored;
  for (fs::directory_iterator i(dir, ignored), end; !ignored && i != end; i.increment(ignored))
    if (const int64_t layer = layer_of(i->path().string()); layer >= 0) found.emplace_back(layer, i->path().string());
  std::sort(found.begin(), found.end());
  std::vector<std::string> paths;
  for (const auto& [layer, path] : found) paths.push_back(path);
  return paths;
}

bool takes(const std::string& file, std::string& path) {
  if (!file.ends_with(".safetensors") || !SafetensorsFile(file).find("W_enc")) return false;
  path = file;
  return true;
}

SaeLocation locate(const SafetensorsFile& file) {
  SaeLocation at;
  const auto said = [&](const char* key) {
    const auto it = file.metadata().find(key);
    return it == file.metadata().end() ? std::string() : it->second;
  };
  at.model = said("model_name");
  at.complete(location_of_hook(said("hook_name")));
  if (at.layer < 0) at.layer = layer_of(file.path());
  at.complete(location_of_path(fs::absolute(file.path()).string()));
  return at;
}

void check_kind(const SafetensorsFile& file) {
  refuse_transcoder(file.path());
  if (file.find("W_skip")) throw Error(file.path() + ": is a transcoder with a skip connection; only SAEs can be read");
  if (!file.find(kThreshold) && file.find("W_enc"))
    throw Error(
        fmt::format("{}: has no {}: a layer of circuit-tracer without it is a ReLU's; only jumprelu is supported",
                    file.path(), kThreshold));
}

SaeFile list(const std::string& path) {
  const SafetensorsFile file(path);
  check_kind(file);
  SaeFile sae{.path = path, .location = locate(file)};
  const SaeShape& shape = file.get("W_enc").shape;
  check_w_enc(path, shape, true);
  sae.latents = shape[0], sae.width = shape[1];
  return sae;
}

// W_enc (d, F) of stored (F, d).
void read_transposed(const Tensor& W_enc, const StoredTensor& stored) {
  const int64_t d = W_enc.dim[0], latents = W_enc.dim[1];
  std::vector<float> rows(static_cast<size_t>(std::min(kBlock, latents) * d));
  const size_t row_bytes = stored.bytes / static_cast<size_t>(latents);
  for (int64_t i = 0; i < latents; i += kBlock) {
    StoredTensor block = stored;
    block.shape = {std::min(kBlock, latents - i), d};
    block.data = stored.data + static_cast<size_t>(i) * row_bytes;
    block.bytes = static_cast<size_t>(block.shape[0]) * row_bytes;
    to_f32(rows.data(), block);
    for (int64_t c = 0; c < d; ++c)
      for (int64_t k = 0; k < block.shape[0]; ++k) W_enc.data<float>()[c * latents + i + k] = rows[k * d + c];
  }
}

LoadedSae load(const std::string& path) {
  const SafetensorsFile file(path);
  check_kind(file);
  const StoredTensor& W_enc = file.get("W_enc");
  check_w_enc(path, W_enc.shape, true);
  LoadedSae sae = allocate_sae(path, {W_enc.shape[1], W_enc.shape[0]});
  read_transposed(sae.params.W_enc, W_enc);
  for (const auto& [name, tensor] : members(sae.params)) {
    if (tensor.ptr == sae.params.W_enc.ptr) continue;
    const StoredTensor& stored = file.get(tensor.ptr == sae.params.threshold.ptr ? kThreshold : name);
    expect_shape(path, stored.name, stored.shape, shape_of(tensor));
    to_f32(tensor.data<float>(), stored);
  }
  check_values(sae);
  sae.location = locate(file);
  return sae;
}

SaeDescription describe(const SaeFile& sae) {
  SaeDescription s;
  s.location = sae.location;
  return s;
}

void write(const std::string& dir, const SaeParameters& params, const SaeDescription& s) {
  require_place(s, kCircuitTracer.name);
  const int64_t d = params.width(), latents = params.latents();
  std::vector<SafetensorsWriter::Declared> declared{{"W_enc", "F32", {latents, d}},
                                                    {"W_dec", "F32", {latents, d}},
                                                    {"b_enc", "F32", {latents}},
                                                    {"b_dec", "F32", {d}},
                                                    {kThreshold, "F32", {latents}}};
  SafetensorsWriter file(fmt::format("{}/layer_{}.safetensors", dir, s.location.layer), declared,
                         {{"model_name", s.location.model},
                          {"hook_name", transformer_lens_hook(s.location)},
                          {"trained_with", std::string("gemma_sae ") + GSAE_VERSION}});
  std::vector<float> rows(static_cast<size_t>(std::min(kBlock, latents) * d));
  for (int64_t i = 0; i < latents; i += kBlock) {
    const int64_t n = std::min(kBlock, latents - i);
    for (int64_t c = 0; c < d; ++c)
      for (int64_t k = 0; k < n; ++k) rows[k * d + c] = params.W_enc.data<float>()[c * latents + i + k];
    file.append("W_enc", rows.data(), static_cast<size_t>(n * d) * sizeof(float));
  }
  file.append("W_dec", params.W_dec.ptr, params.W_dec.bytes());
  file.append("b_enc", params.b_enc.ptr, params.b_enc.bytes());
  file.append("b_dec", params.b_dec.ptr, params.b_dec.bytes());
  file.append(kThreshold, params.threshold.ptr, params.threshold.bytes());
  file.close();
}

}  // namespace

const SaeFormat kCircuitTracer{.name = "circuit-tracer",
                               .files = "layer_N.safetensors",
                               .find = find,
                               .takes = takes,
                               .list = list,
                               .load = load,
                               .describe = describe,
                               .write = write};

}  // namespace gsae
