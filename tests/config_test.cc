#include "model/config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "model/site.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

using Json = nlohmann::json;

// As google/gemma-2-2b publishes it.
const char* kPublished = R"({
  "architectures": ["Gemma2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "attn_logit_softcapping": 50.0, "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": 1,
  "final_logit_softcapping": 30.0, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
  "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "initializer_range": 0.02,
  "intermediate_size": 9216, "max_position_embeddings": 8192, "model_type": "gemma2", "num_attention_heads": 8,
  "num_hidden_layers": 26, "num_key_value_heads": 4, "pad_token_id": 0, "query_pre_attn_scalar": 256,
  "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float32",
  "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256000})";

GemmaConfig parse(const Json& json) {
  const TempFolder folder;
  write_bytes(folder / "config.json", json.dump());
  return read_config(folder.path());
}

void expect_same(const GemmaConfig& a, const GemmaConfig& b) {
  EXPECT_EQ(a.vocab, b.vocab);
  EXPECT_EQ(a.width, b.width);
  EXPECT_EQ(a.layers, b.layers);
  EXPECT_EQ(a.heads, b.heads);
  EXPECT_EQ(a.kv_heads, b.kv_heads);
  EXPECT_EQ(a.head_width, b.head_width);
  EXPECT_EQ(a.ffn, b.ffn);
  EXPECT_EQ(a.max_positions, b.max_positions);
  EXPECT_EQ(a.window, b.window);
  EXPECT_EQ(a.sliding, b.sliding);
  EXPECT_EQ(a.query_scale, b.query_scale);
  EXPECT_EQ(a.attention_cap, b.attention_cap);
  EXPECT_EQ(a.logit_cap, b.logit_cap);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.bos, b.bos);
  EXPECT_EQ(a.eos, b.eos);
  EXPECT_EQ(a.pad, b.pad);
}

TEST(Config, BothFormsAreTheNamedShape) {
  Json j = Json::parse(kPublished);
  expect_same(parse(j), named_shape("2b"));
  EXPECT_EQ(parse(j).dtype, "float32");
  EXPECT_EQ(parse(j).query_scale, 1.0 / 16);

  // as transformers 5 writes the same model
  for (const char* old : {"rope_theta", "torch_dtype", "hidden_act"}) j.erase(old);
  j["rope_parameters"] = {{"rope_theta", 10000.0}, {"rope_type", "default"}};
  j["dtype"] = "bfloat16";
  j["tie_word_embeddings"] = true;
  j["use_bidirectional_attention"] = nullptr;
  for (int i = 0; i < 26; ++i) j["layer_types"].push_back(i % 2 ? "full_attention" : "sliding_attention");
  expect_same(parse(j), named_shape("2b"));
  EXPECT_EQ(parse(j).dtype, "bfloat16");

  expect_same(read_config(demo_data("model")), named_shape("demo"));
}

// The numbers of the report that are not in one form or the other (arXiv:2408.00118, table 1).
TEST(Config, NamedShapes) {
  const GemmaConfig large = named_shape("27b");
  EXPECT_EQ(large.heads * large.head_width, 4096);
  EXPECT_EQ(large.width, 4608);
  EXPECT_EQ(large.query_scale, 1.0 / 12);
  EXPECT_EQ(named_shape("9b").sliding.size(), 42u);
  EXPECT_ERROR(named_shape("7b"), "'7b': must be one of 2b, 9b, 27b, demo");
}

TEST(Config, WhatIsSaidIsRead) {
  Json j = Json::parse(kPublished);
  j["layer_types"] = Json::array();
  for (int i = 0; i < 26; ++i) j["layer_types"].push_back(i == 3 ? "sliding_attention" : "full_attention");
  j["rope_theta"] = 5000;
  j["attn_logit_softcapping"] = nullptr;  // transformers: no cap
  j["eos_token_id"] = {107, 1};
  const GemmaConfig c = parse(j);
  EXPECT_EQ(std::count(c.sliding.begin(), c.sliding.end(), true), 1);
  EXPECT_TRUE(c.sliding[3]);
  EXPECT_EQ(c.rope_theta, 5000);
  EXPECT_EQ(c.attention_cap, 0);
  EXPECT_EQ(c.logit_cap, 30);
  EXPECT_EQ(c.eos, 107);
}

TEST(Config, UnimplementedSettingsAreRefusedByName) {
  const std::vector<std::pair<const char*, Json>> settings{
      {"attention_bias", true},
      {"mlp_bias", true},
      {"tie_word_embeddings", false},
      {"use_bidirectional_attention", true},
      {"hidden_activation", "gelu"},
      {"hidden_activation", "silu"},
      {"rope_scaling", {{"type", "linear"}, {"factor", 2.0}}},
      {"partial_rotary_factor", 0.5},
      {"rope_parameters", {{"rope_theta", 10000.0}, {"rope_type", "yarn"}}},
      {"rope_parameters", {{"rope_theta", 10000.0}, {"factor", 8.0}}},
      {"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}},
      {"layer_types", Json::array({"chunked_attention"})},
      {"quantization_config", {{"bits", 4}}},
  };
  for (const auto& [key, value] : settings) {
    Json j = Json::parse(kPublished);
    j[key] = value;
    if (std::string(key) == "layer_types") j["num_hidden_layers"] = 1;
    const std::string message = error_of([&] { parse(j); });
    EXPECT_NE(message.find(fmt::format("'{}'", key)), std::string::npos) << message;
    EXPECT_NE(message.find("not implemented"), std::string::npos) << message;
    EXPECT_NE(message.find("config.json"), std::string::npos) << message;
  }
  Json j = Json::parse(kPublished);
  j.erase("hidden_activation");
  j["hidden_act"] = "relu";
  EXPECT_ERROR(parse(j), "'hidden_act': \"relu\" is not implemented");
  for (const Json& type : {Json("gemma"), Json("gemma3_text"), Json("llama"), Json(nullptr)}) {
    j = Json::parse(kPublished);
    j["model_type"] = type;
    EXPECT_ERROR(parse(j), "is not implemented, only gemma2");
  }
}

TEST(Config, MissingAndAbsurdValuesAreRefusedByName) {
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "intermediate_size"}) {
    Json j = Json::parse(kPublished);
    j.erase(key);
    EXPECT_ERROR(parse(j), fmt::format("'{}' is missing", key));
    for (const Json& value : {Json(0), Json(-1), Json(int64_t{1} << 40), Json(~uint64_t{0}), Json(INT64_MIN), Json(2.5),
                              Json("12"), Json(true), Json::array({2304})}) {
      j[key] = value;
      EXPECT_ERROR(parse(j), fmt::format("'{}' is {}: must be an integer from 1 to", key, value.dump()));
    }
  }
  for (const char* key :
       {"query_pre_attn_scalar", "rms_norm_eps", "rope_theta", "attn_logit_softcapping", "final_logit_softcapping"})
    for (const Json& value : {Json(0), Json(-1.5), Json("1e-6"), Json(false), Json(1e39), Json(1e-46)}) {
      Json j = Json::parse(kPublished);
      j[key] = value;
      EXPECT_ERROR(parse(j), fmt::format("'{}' is {}: must be a positive number", key, value.dump()));
    }
  const std::vector<std::pair<const char*, Json>> others{
      {"head_dim", 255},          {"head_dim", 512},
      {"num_key_value_heads", 3}, {"bos_token_id", 256000},
      {"eos_token_id", -1},       {"pad_token_id", "<pad>"},
      {"sliding_window", 0},      {"max_position_embeddings", -8},
      {"layer_types", "full"},    {"layer_types", Json::array({"full_attention"})},
      {"rope_parameters", 7},
  };
  for (const auto& [key, value] : others) {
    Json j = Json::parse(kPublished);
    j[key] = value;
    EXPECT_ERROR(parse(j), fmt::format("'{}'", key));
  }
  Json j = Json::parse(kPublished);  // what a token is by default need not be one of a small vocabulary
  j["vocab_size"] = 2, j["pad_token_id"] = 0, j["eos_token_id"] = 1;
  j.erase("bos_token_id");
  EXPECT_ERROR(parse(j), "'bos_token_id' is missing, and 2, which it is then, is no token of the vocabulary of 2");
}

TEST(Config, NoJson) {
  const TempFolder folder;
  EXPECT_ERROR(read_config(folder.path()), "config.json");
  for (const char* text : {"", "{", "[]", "7", "{\"model_type\": \"gemma2\", \"model_type\": \"gemma2\"}"}) {
    write_bytes(folder / "config.json", text);
    EXPECT_ERROR(read_config(folder.path()), "config.json");
  }
}

TEST(Sites, NamesGoBothWays) {
  for (const char* site : {"pre", "att", "attn_out", "mlp_in", "mlp", "res"})
    EXPECT_STREQ(name(parse_site(site)), site);
  for (const char* wrong : {"", "resid", "RES", "res "})
    EXPECT_ERROR(parse_site(wrong), "must be one of pre, att, attn_out, mlp_in, mlp, res");
}

}  // namespace
}  // namespace gsae::test
