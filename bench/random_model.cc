#include "bench/random_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/output_file.h"
#include "io/safetensors.h"
#include "kernels/bf16.h"
#include "kernels/checkf.h"
#include "kernels/parallel.h"

namespace gsae::bench {
namespace {

namespace fs = std::filesystem;

constexpr uint32_t kPurpose = 0x57656967;  // apart from the streams of a run with the same seed

struct Weight {
  std::string name;
  std::vector<int64_t> shape;  // (outputs, inputs), or (d) of a norm
  int64_t size() const { return shape[0] * (shape.size() > 1 ? shape[1] : 1); }
};

std::vector<Weight> weights_of(const GemmaConfig& c) {
  const int64_t d = c.width, q = c.heads * c.head_width, kv = c.kv_heads * c.head_width;
  std::vector<Weight> w{{"model.embed_tokens.weight", {c.vocab, d}}};
  for (int64_t i = 0; i < c.layers; ++i) {
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      w.push_back({fmt::format("model.layers.{}.{}.weight", i, name), std::move(shape)});
    };
    add("input_layernorm", {d});
    add("mlp.down_proj", {d, c.ffn});
    add("mlp.gate_proj", {c.ffn, d});
    add("mlp.up_proj", {c.ffn, d});
    add("post_attention_layernorm", {d});
    add("post_feedforward_layernorm", {d});
    add("pre_feedforward_layernorm", {d});
    add("self_attn.k_proj", {kv, d});
    add("self_attn.o_proj", {d, q});
    add("self_attn.q_proj", {q, d});
    add("self_attn.v_proj", {kv, d});
  }
  w.push_back({"model.norm.weight", {d}});
  return w;
}

// philox4x32 at kLanes consecutive counters: word w of lane l in out[w][l]. GCC makes vector code of
// this form, and not of a loop around philox4x32: three times as fast.
constexpr int kLanes = 16;
using Words = uint32_t[4][kLanes];
void philox_lanes(Words& c, uint64_t counter, uint32_t tensor, uint64_t seed) {
  for (int l = 0; l < kLanes; ++l) {
    c[0][l] = static_cast<uint32_t>(counter + static_cast<uint64_t>(l));
    c[1][l] = static_cast<uint32_t>((counter + static_cast<uint64_t>(l)) >> 32);
    c[2][l] = tensor;
    c[3][l] = kPurpose;
  }
  auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9, k1 += 0xBB67AE85) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) {
      const uint64_t p0 = uint64_t{0xD2511F53} * c[0][l], p1 = uint64_t{0xCD9E8D57} * c[2][l];
      c[0][l] = static_cast<uint32_t>(p1 >> 32) ^ c[1][l] ^ k0;
      c[1][l] = static_cast<uint32_t>(p1);
      c[2][l] = static_cast<uint32_t>(p0 >> 32) ^ c[3][l] ^ k1;
      c[3][l] = static_cast<uint32_t>(p0);
    }
  }
}

// Elements [begin, begin + n) of a tensor, begin a multiple of kBlock; writes whole blocks, so up to
// the next multiple. Each is the sum of the four bytes of a random word: bell-shaped, within 3.5
// standard deviations, and an integer until it is scaled. Several times as cheap as exact normal
// numbers, and nothing that is measured with the weights can tell.
constexpr int64_t kBlock = 4 * kLanes;
void fill(BF16* out, int64_t begin, int64_t n, uint64_t seed, uint32_t tensor, float deviation) {
  constexpr double kSumDeviation = 147.7982859;  // sqrt(4 (256^2 - 1) / 12)
  const float scale = static_cast<float>(deviation / kSumDeviation);
  parallel_for((n + kBlock - 1) / kBlock, 1 << 12, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      Words c;
      philox_lanes(c, static_cast<uint64_t>((begin + b * kBlock) / 4), tensor, seed);
      for (int64_t w = 0; w < 4; ++w) {
#pragma omp simd
        for (int64_t l = 0; l < kLanes; ++l) {
          const uint32_t v = c[w][l];
          const auto sum = static_cast<int32_t>((v & 255) + (v >> 8 & 255) + (v >> 16 & 255) + (v >> 24));
          out[b * kBlock + w * kLanes + l] = to_bf16(static_cast<float>(sum - 510) * scale);
        }
      }
    }
  });
}

// As google/gemma-2-2b publishes it.
nlohmann::ordered_json published_config(const GemmaConfig& c) {
  return {{"architectures", {"Gemma2ForCausalLM"}},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"attn_logit_softcapping", c.attention_cap},
          {"bos_token_id", c.bos},
          {"cache_implementation", "hybrid"},
          {"eos_token_id", c.eos},
          {"final_logit_softcapping", c.logit_cap},
          {"head_dim", c.head_width},
          {"hidden_act", "gelu_pytorch_tanh"},
          {"hidden_activation", "gelu_pytorch_tanh"},
          {"hidden_size", c.width},
          {"initializer_range", 0.02},
          {"intermediate_size", c.ffn},
          {"max_position_embeddings", c.max_positions},
          {"model_type", "gemma2"},
          {"num_attention_heads", c.heads},
          {"num_hidden_layers", c.layers},
          {"num_key_value_heads", c.kv_heads},
          {"pad_token_id", c.pad},
          {"query_pre_attn_scalar", std::llround(1 / (c.query_scale * c.query_scale))},
          {"rms_norm_eps", c.norm_eps},
          {"rope_theta", c.rope_theta},
          {"sliding_window", c.window},
          {"torch_dtype", "bfloat16"},
          {"transformers_version", "4.42.4"},
          {"use_cache", true},
          {"vocab_size", c.vocab}};
}

void require_empty(const fs::path& out) {
  std::error_code error;
  fs::create_directories(out, error);
  if (error) throw Error(fmt::format("cannot create {}: {}", out.string(), error.message()));
  for (const auto& entry : fs::directory_iterator(out))
    if (entry.path().filename() == "config.json" || entry.path().extension() == ".safetensors")
      throw Error(
          fmt::format("{} already holds {}; give another folder", out.string(), entry.path().filename().string()));
}

// The weights [begin, end) of the list, through one buffer.
void write_shard(const std::string& path, const std::vector<Weight>& weights, size_t begin, size_t end, uint64_t seed) {
  constexpr int64_t kChunk = int64_t{1} << 24;  // elements
  std::vector<SafetensorsWriter::Declared> declared;
  for (size_t i = begin; i < end; ++i) declared.push_back({weights[i].name, "BF16", weights[i].shape});
  SafetensorsWriter file(path, declared, {{"format", "pt"}});
  std::vector<BF16> buffer(kChunk);
  for (size_t i = begin; i < end; ++i) {
    const Weight& w = weights[i];
    const float deviation = w.shape.size() == 1 ? 0.1f : 1 / std::sqrt(static_cast<float>(w.shape[1]));
    for (int64_t at = 0; at < w.size(); at += kChunk) {
      const int64_t n = std::min(kChunk, w.size() - at);
      fill(buffer.data(), at, n, seed, static_cast<uint32_t>(i), deviation);
      file.append(w.name, buffer.data(), static_cast<size_t>(n) * sizeof(BF16));
    }
  }
  file.close();
}

}  // namespace

WrittenModel write_random_model(const RandomModelOptions& options) {
  WrittenModel model;
  const GemmaConfig& c = options.shape;
  if (options.shard_bytes <= 0) throw Error("--shard-bytes must be positive");
  const fs::path out(options.out);
  require_empty(out);
  std::string tokenizer;
  if (!options.tokenizer.empty()) tokenizer = read_file(options.tokenizer, 1 << 28);

  const std::vector<Weight> weights = weights_of(c);
  std::vector<size_t> ends;  // of the shards
  int64_t in_shard = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const int64_t bytes = weights[i].size() * int64_t{sizeof(BF16)};
    if (in_shard > 0 && in_shard + bytes > options.shard_bytes) ends.push_back(i), in_shard = 0;
    in_shard += bytes;
    model.parameters += weights[i].size();
    model.bytes += bytes;
  }
  ends.push_back(weights.size());

  nlohmann::ordered_json map;
  for (size_t s = 0, begin = 0; s < ends.size(); begin = ends[s++]) {
    const std::string name =
        ends.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, ends.size());
    write_shard((out / name).string(), weights, begin, ends[s], options.seed);
    for (size_t i = begin; i < ends[s]; ++i) map[weights[i].name] = name;
    model.files.push_back(name);
  }
  if (ends.size() > 1) {
    const nlohmann::ordered_json index{{"metadata", {{"total_size", model.bytes}}}, {"weight_map", map}};
    write_file((out / "model.safetensors.index.json").string(), index.dump(2) + "\n");
  }
  if (!options.tokenizer.empty()) write_file((out / "tokenizer.model").string(), tokenizer);
  write_file((out / "config.json").string(), published_config(c).dump(2) + "\n");  // last: now it is a model
  return model;
}

}  // namespace gsae::bench
