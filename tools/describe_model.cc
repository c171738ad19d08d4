#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "io/json.h"
#include "io/safetensors.h"
#include "model/config.h"
#include "tools/describe.h"

namespace gsae {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

bool is_file(const fs::path& p) {
  std::error_code ignored;
  return fs::is_regular_file(p, ignored);
}

// Which tensors should be in which file: the index, or the single file, of which nothing is asked.
std::map<std::string, std::set<std::string>> expected_files(const fs::path& dir) {
  std::map<std::string, std::set<std::string>> files;
  const fs::path index = dir / "model.safetensors.index.json";
  if (is_file(dir / "model.safetensors") || !is_file(index)) {
    files["model.safetensors"];
    return files;
  }
  const nlohmann::json j = read_json(index.string());
  if (!j.is_object() || !j.contains("weight_map") || !j["weight_map"].is_object())
    throw Error(fmt::format("{}: no weight_map; download it again", index.string()));
  for (const auto& [tensor, file] : j["weight_map"].items()) {
    if (!file.is_string() || file.get_ref<const std::string&>().find('/') != std::string::npos)
      throw Error(fmt::format("{}: the weight_map names no file in this folder for {}", index.string(), tensor));
    files[file.get<std::string>()].insert(tensor);
  }
  return files;
}

int64_t expected_parameters(const GemmaConfig& c) {
  const int64_t d = c.width, dh = c.head_width;
  const int64_t attention = d * dh * (2 * c.heads + 2 * c.kv_heads);
  return c.vocab * d + d + c.layers * (attention + 3 * d * c.ffn + 4 * d);
}

}  // namespace

bool is_model_folder(const std::string& dir) {
  const fs::path config = fs::path(dir) / "config.json";
  if (!is_file(config)) return false;
  const nlohmann::json j = read_json(config.string());
  return j.is_object() && j.contains("model_type");
}

Json describe_model(const std::string& dir) {
  Json out{{"path", dir}, {"kind", "model"}};
  const nlohmann::json config = read_json(dir + "/config.json");
  for (const char* key : {"architectures", "model_type", "num_hidden_layers", "hidden_size", "intermediate_size",
                          "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
                          "max_position_embeddings", "sliding_window", "dtype", "torch_dtype"})
    if (config.contains(key)) out[key] = config[key];

  std::optional<GemmaConfig> gemma;
  try {
    gemma = read_config(dir);
    out["supported"] = true;
  } catch (const Error& e) {
    out["supported"] = false;
    out["unsupported_because"] = e.what();
  }

  int64_t parameters = 0;
  uint64_t bytes = 0;
  std::set<std::string> dtypes;
  Json files = Json::array(), problems = Json::array();
  for (const auto& [name, tensors] : expected_files(dir)) {
    const fs::path path = fs::path(dir) / name;
    if (!is_file(path)) {
      problems.push_back(fmt::format("{} is missing", name));
      continue;
    }
    try {
      const SafetensorsFile file(path.string());
      uint64_t size = 0;
      for (const auto& [tensor, t] : file.tensors()) {
        parameters += t.size();
        size += t.bytes;
        dtypes.insert(t.dtype);
      }
      for (const std::string& tensor : tensors)
        if (!file.find(tensor)) problems.push_back(fmt::format("{} lacks {}", name, tensor));
      files.push_back({{"name", name}, {"tensors", file.tensors().size()}, {"bytes", size}});
      bytes += size;
    } catch (const Error& e) {
      problems.push_back(e.what());
    }
  }
  if (gemma && problems.empty() && parameters != expected_parameters(*gemma))
    problems.push_back(fmt::format("the files hold {} parameters, but config.json asks for {}", parameters,
                                   expected_parameters(*gemma)));
  out["parameters"] = parameters;
  out["bytes"] = bytes;
  out["weights"] = dtypes;
  out["tokenizer"] = is_file(fs::path(dir) / "tokenizer.model");
  out["complete"] = problems.empty();
  if (!problems.empty()) out["problems"] = problems;
  out["files"] = files;
  return out;
}

}  // namespace gsae
