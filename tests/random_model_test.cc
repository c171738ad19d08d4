#include "bench/random_model.h"

#include <omp.h>

#include <cmath>

#include "io/json.h"
#include "io/safetensors.h"
#include "kernels/philox.h"
#include "model/weights.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

GemmaConfig one_layer() {
  GemmaConfig c = named_shape("demo");
  c.layers = 1, c.sliding.resize(1);
  return c;
}

TEST(RandomModel, IsAModelOfItsShape) {
  const TempFolder folder;
  const std::string out = folder / "m", tokenizer = demo_data("model/tokenizer.model");
  const auto written = bench::write_random_model(
      {.shape = named_shape("demo"), .out = out, .seed = 5, .shard_bytes = 2 << 20, .tokenizer = tokenizer});
  EXPECT_GT(written.files.size(), 2u);
  EXPECT_EQ(written.bytes, 2 * written.parameters);
  EXPECT_EQ(read_bytes(out + "/tokenizer.model"), read_bytes(tokenizer));

  const GemmaConfig c = read_config(out), want = named_shape("demo");
  EXPECT_EQ(c.width, want.width);
  EXPECT_EQ(c.layers, want.layers);
  EXPECT_EQ(c.window, want.window);
  EXPECT_DOUBLE_EQ(c.query_scale, want.query_scale);
  EXPECT_EQ(c.sliding, want.sliding);
  // The reader of checkpoints finds every tensor, in the shape that the config asks for.
  Context ctx(Device::kCpu);
  const GemmaWeights weights(ctx, out, c, DType::kBF16);
  EXPECT_EQ(weights.mapped_bytes, size_t(written.bytes));
  EXPECT_EQ(weights.owned_bytes, 0u);
  for (const std::string& name : written.files)
    EXPECT_LT(std::filesystem::file_size(out + "/" + name), (2u << 20) + 65536) << name;
  EXPECT_EQ(read_json(out + "/model.safetensors.index.json")["metadata"]["total_size"], written.bytes);
}

TEST(RandomModel, WeightsHaveTheirScaleAndAreIndependent) {
  const TempFolder folder;
  bench::write_random_model({.shape = one_layer(), .out = folder.path()});
  const SafetensorsFile file(folder / "model.safetensors");
  for (const auto& [name, variance] :
       std::map<std::string, double>{{"model.embed_tokens.weight", 1 / 192.0},
                                     {"model.layers.0.mlp.down_proj.weight", 1 / 768.0},
                                     {"model.layers.0.mlp.up_proj.weight", 1 / 192.0},
                                     {"model.layers.0.self_attn.o_proj.weight", 1 / 256.0}}) {
    const std::vector<float> v = to_f32(file.get(name));
    const double n = double(v.size());
    double sum = 0, squares = 0, neighbours = 0, below = 0;
    for (size_t i = 0; i < v.size(); ++i) {
      sum += v[i], squares += double(v[i]) * v[i];
      neighbours += double(v[i]) * v[(i + 1) % v.size()];
      below += std::fabs(v[i]) < std::sqrt(variance);
    }
    // Five standard errors: of a mean, of a variance (kurtosis 2.7), of a product, of a share.
    EXPECT_NEAR(sum / n, 0, 5 * std::sqrt(variance / n)) << name;
    EXPECT_NEAR(squares / n, variance, 5 * variance * std::sqrt(1.7 / n) + 1e-3 * variance) << name;
    EXPECT_NEAR(neighbours / n, 0, 5 * variance / std::sqrt(n)) << name;
    // Of the sum of four uniform numbers, 2 (2a/3 - a^3/3 + a^4/8) lies within a = 1/sqrt(3) of the mean.
    EXPECT_NEAR(below / n, 0.6693, 5 * 0.47 / std::sqrt(n) + 0.002) << name;  // the rest: sums are integers
  }
  const auto up = to_f32(file.get("model.layers.0.mlp.up_proj.weight")),
             gate = to_f32(file.get("model.layers.0.mlp.gate_proj.weight"));
  double product = 0;
  for (size_t i = 0; i < up.size(); ++i) product += double(up[i]) * gate[i];
  EXPECT_NEAR(product / double(up.size()), 0, 5 / 192.0 / std::sqrt(double(up.size())));
}

// The generator in lanes is the one whose published vectors philox_test.cc checks.
TEST(RandomModel, BitsArePhilox) {
  const TempFolder folder;
  const uint64_t seed = 0x123456789abcdef;
  bench::write_random_model({.shape = one_layer(), .out = folder.path(), .seed = seed});
  const SafetensorsFile file(folder / "model.safetensors");
  const std::vector<float> v = to_f32(file.get("model.layers.0.mlp.down_proj.weight"));  // tensor 2 of the list
  for (const uint32_t i : {0u, 17u, 63u, 64u, 100007u}) {
    const uint32_t block = i / 64, word = i % 64 / 16, lane = i % 16;
    const uint32_t w = philox4x32({block * 16 + lane, 0, 2, 0x57656967}, {uint32_t(seed), uint32_t(seed >> 32)})[word];
    const int sum = int((w & 255) + (w >> 8 & 255) + (w >> 16 & 255) + (w >> 24)) - 510;
    EXPECT_NEAR(v[i], sum / 147.7982859 / std::sqrt(768.0), std::fabs(v[i]) * 0x1p-8) << i;  // one rounding to bf16
  }
}

TEST(RandomModel, DependsOnTheSeedAlone) {
  const TempFolder folder;
  const auto write = [&](const char* name, uint64_t seed, int threads) {
    const int old = omp_get_max_threads();
    omp_set_num_threads(threads);
    bench::write_random_model({.shape = one_layer(), .out = folder / name, .seed = seed});
    omp_set_num_threads(old);
    return read_bytes(folder / (std::string(name) + "/model.safetensors"));
  };
  const std::string one = write("a", 1, 1);
  EXPECT_EQ(one, write("b", 1, 3));
  EXPECT_NE(one, write("c", 2, 1));
}

TEST(RandomModel, Errors) {
  const TempFolder folder;
  EXPECT_ERROR(bench::write_random_model({.shape = one_layer(), .out = folder / "m", .tokenizer = folder / "t"}),
               "cannot read");
  write_bytes(folder / "config.json", "{}");
  EXPECT_ERROR(bench::write_random_model({.shape = one_layer(), .out = folder.path()}), "already holds config.json");
}

}  // namespace
}  // namespace gsae::test
