#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace gsae {

// Gemma 2's config.json, as published (rope_theta, torch_dtype, hidden_act) and as transformers 5
// writes it (rope_parameters, dtype, layer_types).
struct GemmaConfig {
  int64_t vocab = 0;  // V
  int64_t width = 0;  // d
  int64_t layers = 0;
  int64_t heads = 0;       // Hq
  int64_t kv_heads = 0;    // Hkv
  int64_t head_width = 0;  // dh
  int64_t ffn = 0;
  int64_t max_positions = 0;
  int64_t window = 0;         // of sliding layers; counts the query itself
  std::vector<bool> sliding;  // (layers)
  double query_scale = 0;     // query_pre_attn_scalar^-1/2
  double attention_cap = 0;   // 0: none
  double logit_cap = 0;       // 0: none
  double rope_theta = 10000;
  double norm_eps = 1e-6;
  int32_t bos = 2, eos = 1, pad = 0;
  std::string dtype;  // of the published weights, "bfloat16"; empty if not said
};

// Reads DIR/config.json. Refuses, by name, a model type or a setting that is not implemented
// (attention_bias, another activation, rope scaling, untied embeddings, ...) and values outside
// sane bounds (sizes <= 0 or absurd, heads not a multiple of kv_heads, odd head widths).
GemmaConfig read_config(const std::string& dir);

// "gemma-2-2b" shapes and so on, for plans, benchmarks and tests: 2b, 9b, 27b, demo.
GemmaConfig named_shape(const std::string& shape);

}  // namespace gsae
