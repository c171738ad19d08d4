#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstring>
#include <filesystem>
#include <map>

#include "io/json.h"
#include "kernels/all_finite.h"
#include "kernels/checkf.h"

namespace gsae {

namespace {

// The files of a checkpoint and which of them holds each tensor.
class Checkpoint {
 public:
  Checkpoint(const std::string& dir, std::vector<SafetensorsFile>& files) : files_(files) {
    const std::string single = dir + "/model.safetensors", index = single + ".index.json";
    if (exists(single)) {
      path_ = single;
      files_.emplace_back(single);
      for (const auto& [name, tensor] : files_[0].tensors()) at_[name] = 0;
    } else if (exists(index)) {
      path_ = index;
      read_index(dir);
    } else {
      throw Error(
          fmt::format("{} holds neither model.safetensors nor model.safetensors.index.json: not the folder of a "
                      "checkpoint, or its download did not finish",
                      dir));
    }
  }

  const std::string& path() const { return path_; }
  bool has(const std::string& name) const { return at_.contains(name); }
  const StoredTensor& get(const std::string& name) const {
    const auto it = at_.find(name);
    if (it == at_.end()) throw Error(fmt::format("{}: tensor {} is missing", path_, name));
    const SafetensorsFile& file = files_[it->second];
    const StoredTensor* tensor = file.find(name);
    if (!tensor) throw Error(fmt::format("{}: tensor {} is not there, though {} says so", file.path(), name, path_));
    return *tensor;
  }

 private:
  static bool exists(const std::string& path) {
    std::error_code ignored;  // what cannot be reached is not there
    return std::filesystem::exists(path, ignored);
  }
  void read_index(const std::string& dir) {
    const nlohmann::json index = read_json(path_);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
      throw Error(fmt::format("{}: 'weight_map' is missing", path_));
    std::map<std::string, size_t> shards;  // file name -> place in files_
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      // A plain name: no path may lead out of the folder.
      if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
        throw Error(fmt::format("{}: the file of {} is {}: must be the name of a file in the same folder", path_,
                                tensor, file.dump()));
      at_[tensor] = shards.try_emplace(name, shards.size()).first->second;
    }
    std::vector<std::string> missing, names(shards.size());
    for (const auto& [name, i] : shards) {
      names[i] = name;
      if (!exists(dir + "/" + name)) missing.push_back(name);
    }
    if (!missing.empty())
      throw Error(fmt::format("{}: {} of {} shards are missing: {}. Finish the download of the model.", path_,
                              missing.size(), shards.size(), fmt::join(missing, ", ")));
    for (const std::string& name : names) files_.emplace_back(dir + "/" + name);
  }

  std::string path_;
  std::vector<SafetensorsFile>& files_;
  std::map<std::string, size_t> at_;  // tensor -> place in files_
};

// A head of its own would mean other logits. A tied one is saved under one name, by some under both.
void refuse_untied(const Checkpoint& checkpoint) {
  if (!checkpoint.has("lm_head.weight")) return;
  const StoredTensor &head = checkpoint.get("lm_head.weight"), &embedding = checkpoint.get("model.embed_tokens.weight");
  if (head.dtype != embedding.dtype || head.bytes != embedding.bytes ||
      std::memcmp(head.data, embedding.data, head.bytes) != 0)
    throw Error(
        fmt::format("{}: lm_head.weight differs from the embedding: untied output embeddings are not implemented",
                    checkpoint.path()));
}

// The tensors of a layer under their published names.
struct Slot {
  const char* name;
  Tensor LayerWeights::*tensor;
  std::vector<int64_t> shape;
};
std::vector<Slot> slots(const GemmaConfig& c) {
  using W = LayerWeights;
  const int64_t d = c.width, queries = c.heads * c.head_width, keys = c.kv_heads * c.head_width;
  return {{"input_layernorm", &W::norm_in, {d}},
          {"self_attn.q_proj", &W::q, {queries, d}},
          {"self_attn.k_proj", &W::k, {keys, d}},
          {"self_attn.v_proj", &W::v, {keys, d}},
          {"self_attn.o_proj", &W::o, {d, queries}},
          {"post_attention_layernorm", &W::norm_post_att, {d}},
          {"pre_feedforward_layernorm", &W::norm_pre_ffw, {d}},
          {"mlp.gate_proj", &W::gate, {c.ffn, d}},
          {"mlp.up_proj", &W::up, {c.ffn, d}},
          {"mlp.down_proj", &W::down, {d, c.ffn}},
          {"post_feedforward_layernorm", &W::norm_post_ffw, {d}}};
}
std::string tensor_name(int64_t layer, const Slot& slot) {
  return fmt::format("model.layers.{}.{}.weight", layer, slot.name);
}

void require_finite_tensor(Context& ctx, const std::string& path, const std::string& name, const Tensor& t) {
  if (!all_finite(ctx, t))
    throw Error(fmt::format("{}: {} holds NaN or infinity: the checkpoint is damaged, fetch it again", path, name));
}

}  // namespace

GemmaWeights::GemmaWeights(Context& ctx, const std::string& dir, const GemmaConfig& c) {
  const Checkpoint checkpoint(dir, files_);

  // The tensor as the device takes it, `shape` being what the config asks for.
  const auto load = [&](const std::string& name, const std::vector<int64_t>& shape) {
    const StoredTensor& stored = checkpoint.get(name);
    if (stored.shape != shape)
      throw Error(fmt::format("{}: {} has the shape ({}), but config.json asks for ({})", checkpoint.path(), name,
                              fmt::join(stored.shape, ", "), fmt::join(shape, ", ")));
    if (stored.dtype != "BF16" && stored.dtype != "F32" && stored.dtype != "F16")
      throw Error(fmt::format("{}: {} is {}: must be BF16, F32 or F16", checkpoint.path(), name, stored.dtype));

    Tensor host = mapped_view(stored);
    if (host && ctx.device() == Device::kCpu) {
      mapped_bytes += host.bytes();
      return host;
    }
    const bool widen = stored.dtype == "F16";
    Tensor t{.dtype = widen || stored.dtype == "F32" ? DType::kF32 : DType::kBF16, .rank = int(shape.size())};
    std::copy(shape.begin(), shape.end(), t.dim.begin());
    Buffer staging;
    if (!host) {  // F16, or not aligned
      staging = Buffer(Device::kCpu, t.bytes());
      host = t;
      host.ptr = staging.data();
      host.device = Device::kCpu;
      if (widen) to_f32(host.data<float>(), stored);
      else std::memcpy(host.ptr, stored.data, stored.bytes);
    }
    owned_bytes += t.bytes();
    if (ctx.device() == Device::kCpu) {
      copies_.push_back(std::move(staging));
      return host;
    }
    Buffer& memory = copies_.emplace_back(ctx.device(), t.bytes());
    t.ptr = memory.data();
    t.device = ctx.device();
    copy(ctx, t, host);
    ctx.synchronize();  // before the staging copy goes
    return t;
  };
  refuse_untied(checkpoint);
  path_ = checkpoint.path();
  embedding = load("model.embed_tokens.weight", {c.vocab, c.width});
  final_norm = load("model.norm.weight", {c.width});
  layers.resize(c.layers);
  for (int64_t i = 0; i < c.layers; ++i)
    for (const Slot& slot : slots(c)) layers[i].*slot.tensor = load(tensor_name(i, slot), slot.shape);
  finite_.resize(c.layers + 1);
  require_finite_tensor(ctx, path_, "model.norm.weight", final_norm);
}

void GemmaWeights::require_finite(Context& ctx, int64_t layer) const {
  if (finite_[layer]) return;
  for (const Slot& slot : slots({}))
    require_finite_tensor(ctx, path_, tensor_name(layer, slot), layers[layer].*slot.tensor);
  finite_[layer] = true;
}

void GemmaWeights::require_finite_embedding(Context& ctx) const {
  if (finite_.back()) return;
  require_finite_tensor(ctx, path_, "model.embed_tokens.weight", embedding);
  finite_.back() = true;
}

}  // namespace gsae
