#include "bench/random_gemma.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <vector>

#include "io/output_file.h"
#include "io/safetensors.h"
#include "kernels/bf16.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/philox.h"

namespace gsae::bench {

namespace {

using Declared = SafetensorsWriter::Declared;

int64_t elements(const Declared& t) {
  int64_t n = 1;
  for (const int64_t size : t.shape) n *= size;
  return n;
}

std::vector<Declared> list_tensors(const GemmaConfig& c) {
  const int64_t d = c.width;
  std::vector<Declared> list{{"model.embed_tokens.weight", "BF16", {c.vocab, d}}};
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      list.push_back({fmt::format("model.layers.{}.{}.weight", layer, name), "BF16", std::move(shape)});
    };
    add("input_layernorm", {d});
    add("self_attn.q_proj", {c.heads * c.head_width, d});
    add("self_attn.k_proj", {c.kv_heads * c.head_width, d});
    add("self_attn.v_proj", {c.kv_heads * c.head_width, d});
    add("self_attn.o_proj", {d, c.heads * c.head_width});
    add("post_attention_layernorm", {d});
    add("pre_feedforward_layernorm", {d});
    add("mlp.gate_proj", {c.ffn, d});
    add("mlp.up_proj", {c.ffn, d});
    add("mlp.down_proj", {d, c.ffn});
    add("post_feedforward_layernorm", {d});
  }
  list.push_back({"model.norm.weight", "BF16", {d}});
  return list;
}

void write_config(const std::string& path, const GemmaConfig& c) {
  const nlohmann::json config{
      {"architectures", {"Gemma2ForCausalLM"}},
      {"model_type", "gemma2"},
      {"vocab_size", c.vocab},
      {"hidden_size", c.width},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"head_dim", c.head_width},
      {"intermediate_size", c.ffn},
      {"max_position_embeddings", c.max_positions},
      {"sliding_window", c.window},
      {"query_pre_attn_scalar", std::lround(1 / (c.query_scale * c.query_scale))},
      {"attn_logit_softcapping", c.attention_cap},
      {"final_logit_softcapping", c.logit_cap},
      {"rope_theta", c.rope_theta},
      {"rms_norm_eps", c.norm_eps},
      {"bos_token_id", c.bos},
      {"eos_token_id", c.eos},
      {"pad_token_id", c.pad},
      {"hidden_activation", "gelu_pytorch_tanh"},
      {"attention_bias", false},
      {"tie_word_embeddings", true},
      {"torch_dtype", "bfloat16"},
  };
  write_file(path, config.dump(2) + "\n");
}

// The elements [begin, begin + out.size()) of tensor number `index`.
void fill(std::vector<BF16>& out, const Declared& t, uint64_t index, int64_t begin) {
  const bool norm = t.shape.size() == 1;
  const float span = norm ? 0 : std::sqrt(12.0f / float(t.shape[1]));  // of a uniform variable of that deviation
  const Random random(index, Random::kInitDecoder);
  parallel_for(int64_t(out.size()), 1 << 14, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) out[i] = to_bf16((random.uniform(uint64_t(begin + i)) - 0.5f) * span);
  });
}

}  // namespace

void write_random_gemma(const std::string& dir, const GemmaConfig& shape, int64_t shard_bytes) {
  std::filesystem::create_directories(dir);
  if (std::filesystem::exists(dir + "/config.json"))
    throw Error(fmt::format("{} already holds a model; choose another folder", dir));
  const std::vector<Declared> tensors = list_tensors(shape);

  std::vector<size_t> first{0};  // of each shard
  int64_t held = 0, total = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bytes = elements(tensors[i]) * int64_t(sizeof(BF16));
    if (held > 0 && held + bytes > shard_bytes) first.push_back(i), held = 0;
    held += bytes, total += bytes;
  }
  const size_t shards = first.size();
  first.push_back(tensors.size());

  nlohmann::json index{{"metadata", {{"total_size", total}}}, {"weight_map", nlohmann::json::object()}};
  std::vector<BF16> piece;
  for (size_t s = 0; s < shards; ++s) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards);
    SafetensorsWriter writer(dir + "/" + name, {tensors.begin() + first[s], tensors.begin() + first[s + 1]},
                             {{"format", "pt"}});
    for (size_t i = first[s]; i < first[s + 1]; ++i) {
      const int64_t n = elements(tensors[i]);
      for (int64_t begin = 0; begin < n; begin += int64_t(piece.size())) {
        piece.resize(std::min<int64_t>(n - begin, 1 << 22));
        fill(piece, tensors[i], i, begin);
        writer.append(tensors[i].name, piece.data(), piece.size() * sizeof(BF16));
      }
      index["weight_map"][tensors[i].name] = name;
    }
    writer.close();
  }
  write_file(dir + "/model.safetensors.index.json", index.dump(2) + "\n");
  write_config(dir + "/config.json", shape);  // last: what is there without it was not finished
}

}  // namespace gsae::bench
