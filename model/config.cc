#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <optional>

#include "io/json.h"
#include "kernels/attention.h"
#include "kernels/check.h"

namespace gsae {

namespace {

using Json = nlohmann::json;

// config.json with errors that name the file and the field. A field that is null counts as absent.
class Fields {
 public:
  explicit Fields(const std::string& path) : path_(path), json_(read_json(path)) {
    if (!json_.is_object()) fail("the file holds no JSON object");
  }

  [[noreturn]] void fail(const std::string& what) const { throw Error(fmt::format("{}: {}", path_, what)); }

  bool has(const char* key) const { return json_.contains(key) && !json_[key].is_null(); }
  const Json& at(const char* key) const {
    if (!has(key)) fail(fmt::format("'{}' is missing", key));
    return json_[key];
  }

  int64_t integer(const char* key, int64_t low, int64_t high, std::optional<int64_t> absent = {}) const {
    if (absent && !has(key)) return *absent;
    const Json& j = at(key);
    // an unsigned value beyond int64 is not negative, but too large
    const bool fits = j.is_number_integer() && !(j.is_number_unsigned() && j.get<uint64_t>() > uint64_t(high));
    if (!fits || j.get<int64_t>() < low || j.get<int64_t>() > high)
      fail(fmt::format("'{}' is {}: must be an integer from {} to {}", key, j.dump(), low, high));
    return j.get<int64_t>();
  }

  // Positive, and so in f32 as well; null is 0 ("none") where that is allowed.
  double positive(const char* key, double absent, bool null_is_none = false) const {
    if (null_is_none && json_.contains(key) && json_[key].is_null()) return 0;
    return has(key) ? positive(key, json_[key]) : absent;
  }
  double positive(const char* key, const Json& j) const {
    constexpr double kLeast = 1e-30, kMost = 1e30;
    if (!j.is_number() || !(j.get<double>() >= kLeast && j.get<double>() <= kMost))
      fail(fmt::format("'{}' is {}: must be a positive number", key, j.dump()));
    return j.get<double>();
  }

  std::string string(const char* key, const std::string& absent = "") const {
    if (!has(key)) return absent;
    if (!json_[key].is_string()) fail(fmt::format("'{}' is {}: must be a string", key, json_[key].dump()));
    return json_[key].get<std::string>();
  }

  // A setting of which only one value is implemented; absent means that value.
  void only(const char* key, const Json& implemented) const {
    if (has(key) && json_[key] != implemented)
      fail(fmt::format("'{}': {} is not implemented, only {}", key, json_[key].dump(), implemented.dump()));
  }

  // One id, or the first of a list: instruction-tuned models name several ends.
  int32_t token(const char* key, int32_t absent, int64_t vocab) const {
    if (!has(key) && absent >= vocab)
      fail(fmt::format("'{}' is missing, and {}, which it is then, is no token of the vocabulary of {}", key, absent,
                       vocab));
    if (!has(key)) return absent;
    const Json& j = json_[key].is_array() && !json_[key].empty() ? json_[key][0] : json_[key];
    if (!j.is_number_integer() || j < 0 || j >= vocab)
      fail(fmt::format("'{}' is {}: must be a token of the vocabulary of {}", key, json_[key].dump(), vocab));
    return j.get<int32_t>();
  }

 private:
  std::string path_;
  Json json_;
};

// theta of the rotary embedding: `rope_theta` as published, `rope_parameters` as transformers 5 writes it.
double read_rope(const Fields& f) {
  f.only("rope_scaling", nullptr);
  f.only("partial_rotary_factor", 1.0);
  if (!f.has("rope_parameters")) return f.positive("rope_theta", 10000);
  const Json& rope = f.at("rope_parameters");
  if (!rope.is_object()) f.fail("'rope_parameters' must be an object");
  double theta = 10000;
  for (const auto& [key, value] : rope.items()) {
    if (key == "rope_theta") theta = f.positive("rope_parameters.rope_theta", value);
    else if (!(key == "rope_type" && value == "default"))
      f.fail(fmt::format("'rope_parameters': {}: {} is not implemented, only the default type", key, value.dump()));
  }
  return theta;
}

// Which layers slide: `layer_types`, or every other layer from the first.
std::vector<bool> read_sliding(const Fields& f, int64_t layers) {
  std::vector<bool> sliding(static_cast<size_t>(layers));
  for (size_t i = 0; i < sliding.size(); ++i) sliding[i] = i % 2 == 0;
  if (!f.has("layer_types")) return sliding;
  const Json& types = f.at("layer_types");
  if (!types.is_array() || types.size() != sliding.size())
    f.fail(fmt::format("'layer_types' must list {} layers", layers));
  for (size_t i = 0; i < sliding.size(); ++i) {
    if (types[i] != "sliding_attention" && types[i] != "full_attention")
      f.fail(fmt::format("'layer_types': {} is not implemented, only sliding_attention and full_attention",
                         types[i].dump()));
    sliding[i] = types[i] == "sliding_attention";
  }
  return sliding;
}

// Settings that change the arithmetic and that the forward pass does not know.
void refuse_unimplemented(const Fields& f) {
  if (const std::string type = f.string("model_type"); type != "gemma2")
    f.fail(fmt::format("model_type '{}' is not implemented, only gemma2", type));
  f.only("attention_bias", false);
  f.only("mlp_bias", false);
  f.only("tie_word_embeddings", true);
  f.only("use_bidirectional_attention", false);
  f.only("hidden_activation", "gelu_pytorch_tanh");
  // the older name of the same setting, read by transformers for other models only
  if (!f.has("hidden_activation")) f.only("hidden_act", "gelu_pytorch_tanh");
  if (f.has("quantization_config")) f.fail("'quantization_config': quantized weights are not implemented");
}

}  // namespace

GemmaConfig read_config(const std::string& dir) {
  const Fields f(dir + "/config.json");
  refuse_unimplemented(f);
  GemmaConfig c;
  // Far above any model, and low enough that products of sizes stay far below 2^63.
  c.vocab = f.integer("vocab_size", 1, 1 << 24);
  c.width = f.integer("hidden_size", 1, 1 << 16);
  c.layers = f.integer("num_hidden_layers", 1, 1 << 10);
  c.heads = f.integer("num_attention_heads", 1, 1 << 10);
  c.kv_heads = f.integer("num_key_value_heads", 1, 1 << 10);
  c.head_width = f.integer("head_dim", 1, kMaxHeadSize);
  c.ffn = f.integer("intermediate_size", 1, 1 << 20);
  if (c.heads % c.kv_heads != 0)
    f.fail(fmt::format("'num_attention_heads' {} is not a multiple of 'num_key_value_heads' {}", c.heads, c.kv_heads));
  if (c.head_width % 2 != 0) f.fail(fmt::format("'head_dim' {} is odd: rotary pairs need an even one", c.head_width));
  // transformers' defaults for what a checkpoint may leave out
  c.max_positions = f.integer("max_position_embeddings", 1, 1 << 24, 8192);
  c.window = f.integer("sliding_window", 1, 1 << 24, 4096);
  c.sliding = read_sliding(f, c.layers);
  c.query_scale = 1 / std::sqrt(f.positive("query_pre_attn_scalar", 256));
  c.attention_cap = f.positive("attn_logit_softcapping", 50, true);
  c.logit_cap = f.positive("final_logit_softcapping", 30, true);
  c.rope_theta = read_rope(f);
  c.norm_eps = f.positive("rms_norm_eps", 1e-6);
  c.bos = f.token("bos_token_id", 2, c.vocab);
  c.eos = f.token("eos_token_id", 1, c.vocab);
  c.pad = f.token("pad_token_id", 0, c.vocab);
  c.dtype = f.string("dtype", f.string("torch_dtype"));
  return c;
}

GemmaConfig named_shape(const std::string& shape) {
  struct Shape {
    const char* name;
    int64_t vocab, width, layers, heads, kv_heads, head_width, ffn, max_positions, window;
    double query_scalar;
  };
  // Gemma 2, arXiv:2408.00118, table 1; the demo model: tools/demo/model/config.json
  constexpr std::array shapes{
      Shape{"2b", 256000, 2304, 26, 8, 4, 256, 9216, 8192, 4096, 256},
      Shape{"9b", 256000, 3584, 42, 16, 8, 256, 14336, 8192, 4096, 256},
      Shape{"27b", 256000, 4608, 46, 32, 16, 128, 36864, 8192, 4096, 144},
      Shape{"demo", 4096, 192, 6, 4, 2, 64, 768, 1024, 64, 64},
  };
  std::vector<std::string> names;
  for (const Shape& s : shapes) {
    names.push_back(s.name);
    if (shape != s.name) continue;
    GemmaConfig c;
    c.vocab = s.vocab, c.width = s.width, c.layers = s.layers, c.heads = s.heads, c.kv_heads = s.kv_heads;
    c.head_width = s.head_width, c.ffn = s.ffn, c.max_positions = s.max_positions, c.window = s.window;
    for (int64_t i = 0; i < s.layers; ++i) c.sliding.push_back(i % 2 == 0);
    c.query_scale = 1 / std::sqrt(s.query_scalar);
    c.attention_cap = 50, c.logit_cap = 30;
    c.dtype = "bfloat16";
    return c;
  }
  throw Error(fmt::format("unknown model shape '{}': must be one of {}", shape, fmt::join(names, ", ")));
}

}  // namespace gsae
