#include "bench/random_checkpoint.h"

#include <fmt/format.h>

#include <cmath>
#include <fstream>

#include "io/safetensors.h"
#include "kernels/check.h"
#include "kernels/parallel.h"
#include "kernels/philox.h"

namespace gsae::bench {

namespace {

struct Declared {  // a tensor to be made up
  std::string name;
  std::vector<int64_t> shape;
};

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  if (!out.flush()) throw Error("cannot write " + path);
}

void write_config(const std::string& path, const GemmaConfig& c) {
  std::string types;
  for (const bool sliding : c.sliding)
    types += fmt::format("{}\"{}_attention\"", types.empty() ? "" : ", ", sliding ? "sliding" : "full");
  // transformers refuses integers here
  const auto cap = [](double v) { return v > 0 ? fmt::format("{:#}", v) : std::string("null"); };
  write_text(path, fmt::format(R"({{
  "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "dtype": "bfloat16", "tie_word_embeddings": true,
  "vocab_size": {}, "hidden_size": {}, "num_hidden_layers": {}, "num_attention_heads": {}, "num_key_value_heads": {},
  "head_dim": {}, "intermediate_size": {}, "max_position_embeddings": {}, "sliding_window": {},
  "query_pre_attn_scalar": {}, "attn_logit_softcapping": {}, "final_logit_softcapping": {},
  "rope_parameters": {{"rope_type": "default", "rope_theta": {:#}}}, "rms_norm_eps": {},
  "hidden_activation": "gelu_pytorch_tanh", "attention_bias": false, "layer_types": [{}],
  "bos_token_id": {}, "eos_token_id": {}, "pad_token_id": {}
}}
)",
                               c.vocab, c.width, c.layers, c.heads, c.kv_heads, c.head_width, c.ffn, c.max_positions,
                               c.window, std::lround(1 / (c.query_scale * c.query_scale)), cap(c.attention_cap),
                               cap(c.logit_cap), c.rope_theta, c.norm_eps, types, c.bos, c.eos, c.pad));
}

std::vector<Declared> tensors_of(const GemmaConfig& c) {
  const int64_t d = c.width, queries = c.heads * c.head_width, keys = c.kv_heads * c.head_width;
  std::vector<Declared> all{{"model.embed_tokens.weight", {c.vocab, d}}};
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string layer = fmt::format("model.layers.{}.", i);
    for (const char* norm : {"input", "post_attention", "pre_feedforward", "post_feedforward"})
      all.push_back({fmt::format("{}{}_layernorm.weight", layer, norm), {d}});
    all.push_back({layer + "self_attn.q_proj.weight", {queries, d}});
    all.push_back({layer + "self_attn.k_proj.weight", {keys, d}});
    all.push_back({layer + "self_attn.v_proj.weight", {keys, d}});
    all.push_back({layer + "self_attn.o_proj.weight", {d, queries}});
    all.push_back({layer + "mlp.gate_proj.weight", {c.ffn, d}});
    all.push_back({layer + "mlp.up_proj.weight", {c.ffn, d}});
    all.push_back({layer + "mlp.down_proj.weight", {d, c.ffn}});
  }
  all.push_back({"model.norm.weight", {d}});
  return all;
}

}  // namespace

void write_random_checkpoint(const std::string& dir, const GemmaConfig& c, int shards, uint64_t seed) {
  write_config(dir + "/config.json", c);
  const std::vector<Declared> all = tensors_of(c);
  const size_t per_shard = (all.size() + shards - 1) / shards;
  std::string index;
  uint64_t stream = 0;
  for (int shard = 0; shard < shards; ++shard) {
    const auto begin = all.begin() + std::min(all.size(), shard * per_shard);
    const auto end = all.begin() + std::min(all.size(), (shard + 1) * per_shard);
    const std::string file =
        shards == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
    std::vector<SafetensorsWriter::Declared> declared;
    for (auto t = begin; t != end; ++t) {
      declared.push_back({t->name, "BF16", t->shape});
      index += fmt::format("{}\n    \"{}\": \"{}\"", index.empty() ? "" : ",", t->name, file);
    }
    SafetensorsWriter writer(dir + "/" + file, declared);
    for (auto t = begin; t != end; ++t) {
      const Random random(seed, Random::kInitDecoder, stream++);
      const bool norm = t->shape.size() == 1;
      const int64_t rows = norm ? 1 : t->shape[0], width = t->shape.back();
      const float limit = norm ? 0.5f : std::sqrt(3.0f / static_cast<float>(width));
      constexpr int64_t kBlock = 4096;  // rows at a time
      std::vector<BF16> values(std::min(rows, kBlock) * width);
      for (int64_t r = 0; r < rows; r += kBlock) {
        const int64_t count = std::min(kBlock, rows - r) * width, first = r * width;
        parallel_for((count + 3) / 4, 1 << 12, [&](int64_t from, int64_t to) {
          for (int64_t q = from; q < to; ++q) {
            const auto words = random.words(static_cast<uint64_t>(first / 4 + q));
            for (int64_t i = 0; i < 4 && 4 * q + i < count; ++i)
              values[4 * q + i] = to_bf16((static_cast<float>(words[i] >> 8) * 0x1p-23f - 1) * limit);
          }
        });
        writer.append(t->name, values.data(), static_cast<size_t>(count) * sizeof(BF16));
      }
    }
    writer.close();
  }
  if (shards > 1)
    write_text(dir + "/model.safetensors.index.json", "{\"metadata\": {}, \"weight_map\": {" + index + "}}\n");
}

}  // namespace gsae::bench
