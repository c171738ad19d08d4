#include "tools/describe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>
#include <vector>

#include "io/json.h"
#include "io/mapped_file.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "io/torch_zip.h"
#include "io/zip_reader.h"
#include "kernels/check.h"
#include "sae/sae_file.h"

namespace gsae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kDeepest = 6;  // folders: site, layer, width, L0, and a hub cache's above them

bool is_file(const fs::path& p) {
  std::error_code ignored;
  return fs::is_regular_file(p, ignored);
}

std::vector<fs::path> sorted_entries(const fs::path& dir) {
  std::vector<fs::path> entries;
  std::error_code ignored;  // a folder that may not be read holds nothing for us
  for (const auto& entry : fs::directory_iterator(dir, ignored)) entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

Json describe_safetensors(const std::string& path) {
  const SafetensorsFile file(path);
  Json tensors = Json::array();
  int64_t elements = 0;
  uint64_t bytes = 0;
  for (const auto& [name, t] : file.tensors()) {
    tensors.push_back({{"name", name}, {"dtype", t.dtype}, {"shape", t.shape}, {"bytes", t.bytes}});
    elements += t.size();
    bytes += t.bytes;
  }
  Json out{{"path", path}, {"kind", "safetensors"}, {"elements", elements}, {"bytes", bytes}};
  if (!file.metadata().empty()) out["metadata"] = file.metadata();
  out["tensors"] = tensors;
  return out;
}

Json describe_npz(const std::string& path) {
  Json arrays = Json::array();
  uint64_t bytes = 0;
  for (const NpzEntry& e : list_npz(path)) {
    arrays.push_back({{"name", e.name},
                      {"dtype", e.header.descr},
                      {"shape", e.header.shape},
                      {"bytes", e.header.bytes()},
                      {"stored_bytes", e.stored_bytes}});
    bytes += e.header.bytes();
  }
  return {{"path", path}, {"kind", "npz"}, {"bytes", bytes}, {"arrays", arrays}};
}

Json describe_torch(const std::string& path) {
  const TorchFile file(path);
  constexpr std::array kTypes{"F64", "F32", "F16", "BF16"};
  Json arrays = Json::array();
  uint64_t bytes = 0;
  for (const auto& [name, t] : file.tensors()) {
    const uint64_t n = static_cast<uint64_t>(t.size()) * bytes_of(t.type);
    arrays.push_back(
        {{"name", name}, {"dtype", kTypes[static_cast<size_t>(t.type)]}, {"shape", t.shape}, {"bytes", n}});
    bytes += n;
  }
  return {{"path", path}, {"kind", "torch"}, {"bytes", bytes}, {"arrays", arrays}};
}

Json describe_npy(const std::string& path) {
  const MappedFile file(path);
  const NpyHeader h = parse_npy(path, file.data(), file.size(), true);
  if (h.descr != "|O" && file.size() - h.data_offset != h.bytes())
    throw Error(fmt::format("{}: {} bytes of elements, but its header asks for {}; it is cut short or damaged", path,
                            file.size() - h.data_offset, h.bytes()));
  return {{"path", path},     {"kind", "npy"},      {"dtype", h.descr},
          {"shape", h.shape}, {"bytes", h.bytes()}, {"order", h.fortran_order ? "Fortran" : "C"}};
}

bool is_data_file(const fs::path& p) {
  return is_file(p) && (p.extension() == ".safetensors" || p.extension() == ".npz" || p.extension() == ".npy" ||
                        p.extension() == ".pt");
}
Json describe_file(const std::string& path) {
  if (path.ends_with(".pt") || path.ends_with(".pth")) return describe_torch(path);
  if (is_zip(path)) return describe_npz(path);
  if (path.ends_with(".npy")) return describe_npy(path);
  if (path.ends_with(".safetensors")) return describe_safetensors(path);
  throw Error(
      fmt::format("{}: not a kind of file that info knows: .safetensors, .npz, .npy, .pt, or the folder of a model, a "
                  "training run or an SAE",
                  path));
}

// d and latents, if there is an encoder (d, latents); circuit-tracer keeps it transposed.
void add_sizes(Json& out, const Json& arrays, const std::string& format) {
  for (const Json& a : arrays) {
    if ((a["name"] != "W_enc" && a["name"] != "w_enc") || a["shape"].size() != 2) continue;
    const bool transposed = format == "circuit-tracer";
    out["d"] = a["shape"][transposed];
    out["latents"] = a["shape"][!transposed];
  }
}

Json describe_sae(const SaeSource& place) {
  const std::string parameters = parameters_file(place), dir = fs::path(parameters).parent_path().string();
  Json out{{"path", fs::path(parameters).filename().string().starts_with("layer_") ? parameters : dir},
           {"kind", "sae"}};
  const Json file = describe_file(parameters);
  const Json& arrays = file[file.contains("tensors") ? "tensors" : "arrays"];
  out["format"] = place.format;
  add_sizes(out, arrays, place.format);
  if (const SaeLocation at = location_of_path(fs::absolute(parameters).string()); at.layer >= 0) {
    if (!at.model.empty()) out["model"] = at.model;
    if (!at.site.empty()) out["site"] = at.site;
    out["layer"] = at.layer;
  }
  if (is_transcoder_path(dir)) out["transcoder"] = true;
  out["bytes"] = file["bytes"];
  out["arrays"] = arrays;
  if (file.contains("metadata")) out["metadata"] = file["metadata"];
  for (const auto& [key, name] :
       {std::pair{"config", place.format == "saelens" ? "cfg.json" : "config.json"}, {"eval", "eval.json"}})
    if (is_file(fs::path(dir) / name)) out[key] = read_json(dir + "/" + name);
  return out;
}

// One line for a table: the value of "l0" may be a number or {"value": ..., "standard_error": ...}.
Json summary(const Json& sae, const fs::path& root) {
  Json row{{"path", fs::path(sae["path"].get<std::string>()).lexically_relative(root).string()},
           {"format", sae["format"]},
           {"d", sae.value("d", Json())},
           {"latents", sae.value("latents", Json())}};
  const Json eval = sae.value("eval", Json::object());
  if (!eval.is_object()) return row;
  for (const char* key : {"l0", "fvu", "delta_loss", "loss_recovered", "dead"}) {
    if (!eval.contains(key)) continue;
    const Json& v = eval[key];
    row[key] = v.is_object() && v.contains("value") ? v["value"] : v;
  }
  return row;
}

void find_saes(const fs::path& dir, const fs::path& root, int depth, Json& found) {
  for (const SaeSource& place : saes_in(dir.string())) found.push_back(summary(describe_sae(place), root));
  if (depth == kDeepest) return;
  for (const fs::path& p : sorted_entries(dir)) {
    std::error_code ignored;
    if (fs::is_directory(p, ignored) && p.filename() != "checkpoints") find_saes(p, root, depth + 1, found);
  }
}

// Lines of the log and the last whole one: a run that is going on may be writing another.
Json describe_log(const std::string& path) {
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  Json out{{"lines", std::count(text.begin(), text.end(), '\n')}};
  const size_t end = text.rfind('\n');
  if (end == text.npos || end == 0) return out;
  const size_t before = text.rfind('\n', end - 1), begin = before == text.npos ? 0 : before + 1;
  constexpr size_t kLongest = 1 << 20;
  if (end - begin <= kLongest) out["last"] = parse_json(path + ": its last line", text.substr(begin, end - begin));
  return out;
}

Json describe_run(const std::string& dir) {
  Json saes = Json::array();
  find_saes(dir, dir, 0, saes);
  Json out{{"path", dir}, {"kind", "run"}, {"finished", !saes.empty()}};
  out["log"] = describe_log(dir + "/train.jsonl");
  out["config"] = read_json(dir + "/config.json");
  out["saes"] = saes;
  return out;
}

Json describe_folder(const std::string& dir) {
  Json saes = Json::array(), files = Json::array();
  find_saes(dir, dir, 0, saes);
  for (const fs::path& p : sorted_entries(dir)) {
    if (!is_data_file(p)) continue;
    const Json d = describe_file(p.string());
    files.push_back({{"name", p.filename().string()}, {"kind", d["kind"]}, {"bytes", d["bytes"]}});
  }
  if (saes.empty() && files.empty())
    throw Error(
        fmt::format("{}: holds nothing that info knows: no model (config.json), no training run (train.jsonl), no SAE "
                    "({}), no .safetensors, .npz, .npy or .pt",
                    dir, sae_file_names()));
  Json out{{"path", dir}, {"kind", "folder"}};
  if (!saes.empty()) out["saes"] = saes;
  if (!files.empty()) out["files"] = files;
  return out;
}

}  // namespace

Json describe(const std::string& path) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return describe_file(path);
  if (is_file(fs::path(path) / "train.jsonl") && is_file(fs::path(path) / "config.json")) return describe_run(path);
  if (const auto saes = saes_in(path); saes.size() == 1) return describe_sae(saes[0]);
  if (is_model_folder(path)) return describe_model(path);
  return describe_folder(path);
}

}  // namespace gsae
