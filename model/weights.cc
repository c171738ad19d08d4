#include "model/weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>

#include "io/json.h"
#include "kernels/all_finite.h"
#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/elementwise.h"
#include "kernels/random_normal.h"

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

// Places of all weights in memory of their own, one buffer for each layer.
void GemmaWeights::lay_out(std::optional<Device> device, const GemmaConfig& c, DType compute) {
  const int64_t d = c.width, queries = c.heads * c.head_width, keys = c.kv_heads * c.head_width;
  const auto in_own_buffer = [&](const std::function<void(Arena&)>& take) {
    Arena plan;
    take(plan);
    owned_bytes += plan.used();
    if (!device) return;
    Arena arena(copies_.emplace_back(*device, plan.used()));
    take(arena);
  };
  in_own_buffer([&](Arena& arena) {
    embedding = arena.take("embedding", compute, {c.vocab, d});
    final_norm = arena.take("final norm", DType::kF32, {d});
  });
  layers.resize(c.layers);
  for (LayerWeights& w : layers)
    in_own_buffer([&](Arena& arena) {
      const Tensor qkv = arena.take("q, k, v", compute, {queries + 2 * keys, d});
      w.q = qkv.rows(0, queries), w.k = qkv.rows(queries, queries + keys), w.v = qkv.rows(queries + keys, qkv.dim[0]);
      w.o = arena.take("o", compute, {d, queries});
      const Tensor gate_up = arena.take("gate, up", compute, {2 * c.ffn, d});
      w.gate = gate_up.rows(0, c.ffn), w.up = gate_up.rows(c.ffn, 2 * c.ffn);
      w.down = arena.take("down", compute, {d, c.ffn});
      for (Tensor* norm : {&w.norm_in, &w.norm_post_att, &w.norm_pre_ffw, &w.norm_post_ffw})
        *norm = arena.take("norm", DType::kF32, {d});
    });
}

// A stored tensor as the device takes it: in `place` on a GPU, wherever it can be read on the CPU.
Tensor GemmaWeights::load(Context& ctx, const std::string& name, const StoredTensor& stored,
                          const std::vector<int64_t>& shape, Tensor place) {
  if (stored.shape != shape)
    throw Error(fmt::format("{}: {} has the shape ({}), but config.json asks for ({})", path_, name,
                            fmt::join(stored.shape, ", "), fmt::join(shape, ", ")));
  if (stored.dtype != "BF16" && stored.dtype != "F32" && stored.dtype != "F16")
    throw Error(fmt::format("{}: {} is {}: must be BF16, F32 or F16", path_, name, stored.dtype));
  const bool on_cpu = ctx.device() == Device::kCpu;
  Tensor host = mapped_view(stored);
  if (host && on_cpu) {
    mapped_bytes += host.bytes();
    return host;
  }
  Buffer staging;
  if (!host) {  // F16, or not aligned
    const bool widen = stored.dtype == "F16";
    host = Tensor{.dtype = widen || stored.dtype == "F32" ? DType::kF32 : DType::kBF16, .rank = int(shape.size())};
    std::copy(shape.begin(), shape.end(), host.dim.begin());
    staging = Buffer(Device::kCpu, host.bytes());
    host.ptr = staging.data();
    if (widen) to_f32(host.data<float>(), stored);
    else std::memcpy(host.ptr, stored.data, stored.bytes);
  }
  if (on_cpu) {
    owned_bytes += host.bytes();
    copies_.push_back(std::move(staging));
    return host;
  }
  if (host.dtype == place.dtype) {
    copy(ctx, place, host);
    ctx.synchronize();  // before the staging memory goes
    return place;
  }
  const Buffer uploaded(ctx.device(), host.bytes());
  Tensor as_stored = host;
  as_stored.ptr = uploaded.data();
  as_stored.device = ctx.device();
  copy(ctx, as_stored, host);
  convert(ctx, place, as_stored);
  ctx.synchronize();
  return place;
}

GemmaWeights::GemmaWeights(Context& ctx, const std::string& dir, const GemmaConfig& c, DType compute) {
  const Checkpoint checkpoint(dir, files_);
  path_ = checkpoint.path();
  refuse_untied(checkpoint);
  if (ctx.device() != Device::kCpu) lay_out(ctx.device(), c, compute);
  const auto fill = [&](Tensor& tensor, const std::string& name, const std::vector<int64_t>& shape) {
    tensor = load(ctx, name, checkpoint.get(name), shape, tensor);
  };
  fill(embedding, "model.embed_tokens.weight", {c.vocab, c.width});
  fill(final_norm, "model.norm.weight", {c.width});
  layers.resize(c.layers);
  for (int64_t i = 0; i < c.layers; ++i)
    for (const Slot& slot : slots(c)) fill(layers[i].*slot.tensor, tensor_name(i, slot), slot.shape);
  finite_.resize(c.layers + 1);
  require_finite_tensor(ctx, path_, "model.norm.weight", final_norm);
}

GemmaWeights::GemmaWeights(Context& ctx, const GemmaConfig& c, DType compute, uint64_t seed) {
  lay_out(ctx.device(), c, compute);
  uint64_t tensors = 0;
  const auto fill = [&](Tensor t) {
    if (t.rank == 1) return fill_zero(ctx, t);
    const float deviation = 1 / std::sqrt(static_cast<float>(t.dim[1]));
    random_normal(ctx, t, Random(seed, Random::kInitModel, tensors++), deviation);
  };
  fill(embedding);
  fill(final_norm);
  for (LayerWeights& w : layers)
    for (const Slot& slot : slots(c)) fill(w.*slot.tensor);
  finite_.assign(c.layers + 1, true);
}

GemmaWeights::GemmaWeights(const GemmaConfig& c, DType compute) { lay_out({}, c, compute); }

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
