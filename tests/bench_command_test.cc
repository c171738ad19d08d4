// `bench`: what it counts, by numbers worked out by hand; what it makes of its measurements; and that it runs, through
// the binary, on every device. How fast anything is, no test can say.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "io/json.h"
#include "kernels/context.h"
#include "tests/run_binary.h"
#include "tools/bench_report.h"
#include "tools/model_source.h"
#include "tools/step_cost.h"

namespace gsae::test {
namespace {

using Words = std::vector<std::string>;

TEST(StepCost, FiveProductsOfTwoFlopAWeight) {
  EXPECT_EQ(sae_flops_per_row(3, 5), 150);
  EXPECT_EQ(sae_flops_per_row(2304, 16384), 377'487'360);
}

// Two rows of three inputs, five latents. Adam: two matrices of 15, five f32 each and the copy; 13 biases and
// thresholds.
TEST(StepCost, BytesThatAStepMoves) {
  const StepBytes narrow = step_bytes(2, 3, 5, DType::kBF16), wide = step_bytes(2, 3, 5, DType::kF32);
  EXPECT_EQ(narrow.optimizer, 2 * 15 * 22 + 13 * 20);
  EXPECT_EQ(wide.optimizer, 2 * 15 * 20 + 13 * 20);
  // (rows, latents): z, f, then df, z, dz; (rows, inputs): gather, centre, error, moments; W_enc; counters
  EXPECT_EQ(narrow.elementwise, 10 * (4 + 2 + 4 + 4 + 2) + 6 * (2 + 4 + 4 + 2 + 4 + 4 + 4 + 2 + 4) + 15 * 4 + 5 * 40);
  EXPECT_EQ(wide.elementwise, 10 * (4 + 4 + 4 + 4 + 4) + 6 * (4 + 4 + 4 + 4 + 4 + 4 + 4 + 4 + 4) + 15 * 4 + 5 * 40);
}

TEST(StepCost, TheRoofIsProductsThenOptimizer) {
  const StepBytes b = step_bytes(2, 3, 5, DType::kBF16);
  EXPECT_DOUBLE_EQ(step_roof_seconds(2, 3, 5, DType::kBF16, 300, b.optimizer / 10), 2 * 150 / 300.0 + 10);
  constexpr double kUnknown = std::numeric_limits<double>::infinity();
  EXPECT_EQ(step_roof_seconds(2, 3, 5, DType::kBF16, kUnknown, kUnknown), 0);
}

// One layer of two heads of three, one of keys; three positions, so two keys a query on average.
TEST(ForwardCost, WeightsAndAttentionUpToTheSite) {
  GemmaConfig c;
  c.width = 4, c.layers = 1, c.heads = 2, c.kv_heads = 1, c.head_width = 3, c.ffn = 5, c.window = 2,
  c.sliding = {false};
  const double qkv = 2 * 4 * (6 + 3 + 3), out = 2 * 6 * 4, ffn = 2 * 3 * 4 * 5, attention = 2 * 2 * 6 * 2;
  EXPECT_EQ(forward_flops_per_token(c, 3, Site::kPre, 0), 0);
  EXPECT_EQ(forward_flops_per_token(c, 3, Site::kAtt, 0), qkv + attention);
  EXPECT_EQ(forward_flops_per_token(c, 3, Site::kMlpIn, 0), qkv + attention + out);
  EXPECT_EQ(forward_flops_per_token(c, 3, Site::kRes, 0), qkv + attention + out + ffn);
  c.sliding = {true};  // 1, 2, 2 keys
  EXPECT_DOUBLE_EQ(forward_flops_per_token(c, 3, Site::kAtt, 0), qkv + attention * 5 / 6);
}

// Passes of three tokens, two of them trained on; steps of two rows of the SAE above.
BenchResult example() {
  BenchResult r;
  r.plan.shape_name = "demo", r.plan.context = 3, r.plan.batch = 2, r.plan.width = 5, r.plan.l0 = 2;
  r.device = "a device", r.d = 3, r.layers = 6, r.contexts = 1, r.pass_rows = 2, r.flops_per_token = 100;
  r.l0 = 2.25, r.planned = 1000, r.used = 1105;
  r.roofs = {.model_peak = 1000, .sae_peak = 300, .bandwidth = 92, .published = 2000};  // a step: 1 s + 920 / 92 s
  r.forward = {.passes = 4, .seconds = 2};
  r.sae = {.steps = 3, .seconds = 66};
  r.whole = {.passes = 4, .steps = 5, .seconds = 100};
  return r;
}

TEST(BenchReport, Speeds) {
  const BenchResult r = example();
  const Speed forward = forward_speed(r), sae = sae_speed(r), whole = whole_speed(r);
  EXPECT_DOUBLE_EQ(forward.per_second, 6);  // tokens, BOS too
  EXPECT_DOUBLE_EQ(forward.roof, 10);
  EXPECT_DOUBLE_EQ(forward.flops, 600);
  EXPECT_DOUBLE_EQ(forward.mfu, 0.6);
  EXPECT_DOUBLE_EQ(forward.published_mfu, 0.3);
  EXPECT_DOUBLE_EQ(sae.per_second, 6 / 66.0);
  EXPECT_DOUBLE_EQ(sae.roof, 2 / 11.0);
  EXPECT_DOUBLE_EQ(sae.roof_fraction(), 0.5);
  EXPECT_DOUBLE_EQ(sae.mfu, 3 / 66.0);
  // five steps want five passes; the fifth is added at the speed of the forward pass alone: half a second
  EXPECT_DOUBLE_EQ(whole.per_second, 10 / 100.5);
  EXPECT_DOUBLE_EQ(whole.roof_fraction(), (5 * 0.3 + 5 * 11) / 100.5);
  EXPECT_DOUBLE_EQ(whole.mfu, (5 * 0.3 + 5 * 1) / 100.5);
  EXPECT_DOUBLE_EQ(whole.published_mfu, (5 * 300 + 5 * 300) / 2000.0 / 100.5);
}

TEST(BenchReport, WhatIsNotKnownIsSaidToBeUnknown) {
  BenchResult r = example();
  constexpr double kUnknown = std::numeric_limits<double>::infinity();
  r.roofs = {kUnknown, kUnknown, kUnknown, kUnknown};
  const std::string table = bench_table(r);
  EXPECT_NE(table.find("unknown"), std::string::npos);
  for (const char* wrong : {"inf", "nan", "published", "0.0 %"})
    EXPECT_EQ(table.find(wrong), std::string::npos) << wrong << " in:\n" << table;
  const nlohmann::ordered_json j = bench_json(r);
  for (const auto& [name, value] : j["roofs"].items()) EXPECT_TRUE(value.is_null()) << name;
  for (const char* part : {"forward", "sae_step", "whole"}) {
    for (const char* key : {"roof_tokens_per_second", "roof_fraction", "mfu", "published_mfu"})
      EXPECT_TRUE(j[part][key].is_null()) << part << "." << key;
    EXPECT_GT(j[part]["tokens_per_second"], 0) << part;
  }
}

TEST(BenchReport, PublishedPeaksByName) {
  EXPECT_EQ(published_bf16_peak("NVIDIA H200"), 989e12);
  EXPECT_EQ(published_bf16_peak("NVIDIA H200 NVL"), 835e12);
  EXPECT_EQ(published_bf16_peak("NVIDIA H100 80GB HBM3"), 989e12);
  EXPECT_EQ(published_bf16_peak("NVIDIA H100 PCIe"), 756e12);
  EXPECT_EQ(published_bf16_peak("NVIDIA A100-SXM4-80GB"), 312e12);
  for (const char* name : {"", "AMD EPYC", "NVIDIA H200 MIG 1g.18gb", "NVIDIA A10"})
    EXPECT_TRUE(std::isinf(published_bf16_peak(name))) << name;
}

// Tiny, so that an emulated GPU runs it in seconds: passes of 62 rows, steps of 64.
Words tiny(const Words& more = {}) {
  Words words{"bench", "--shape",   "demo", "--layer",       "0", "--width",  "256", "--l0", "8", "--batch",
              "64",    "--context", "32",   "--model-batch", "2", "--buffer", "256"};
  if (std::find(more.begin(), more.end(), "--seconds") == more.end()) words.insert(words.end(), {"--steps", "2"});
  words.insert(words.end(), {"--threads", "1"});
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

class BenchCommand : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (const std::string why = why_unavailable(Device::kCuda); GetParam() == "cuda" && !why.empty())
      GTEST_SKIP() << why;
  }
  Words here(Words more = {}) const {
    more.insert(more.end(), {"--device", GetParam()});
    return tiny(more);
  }
  bool emulated() const { return GetParam() == "cuda" && cuda_backend() == CudaBackend::kEmulated; }
};
INSTANTIATE_TEST_SUITE_P(Devices, BenchCommand, testing::Values("cpu", "cuda"), [](const auto& p) { return p.param; });

TEST_P(BenchCommand, SaysWhatItMeasured) {
  const TempFolder dir;
  const Outcome o = run_binary(here({"--json", dir / "bench.json"}));
  expect_outcome(o, 0);
  for (const char* part : {"memory plan", "forward", "SAE step", "whole", "of roof", "MFU", "asked for", "planned"})
    EXPECT_NE(o.out.find(part), std::string::npos) << part << " is not in:\n" << o.out;
  EXPECT_EQ(o.out.find("unknown") != std::string::npos, emulated()) << o.out;

  const nlohmann::json j = read_json(dir / "bench.json");
  EXPECT_EQ(j["d"], 192);
  EXPECT_EQ(j["forward"]["passes"], 3);  // 2 steps of 64 rows, passes of 62
  EXPECT_EQ(j["sae_step"]["steps"], 2);
  EXPECT_EQ(j["whole"]["steps"], 2);
  EXPECT_EQ(j["whole"]["passes"], 2);
  EXPECT_EQ(j["sae_step"]["flops_per_row"], 10 * 192 * 256);
  EXPECT_EQ(j["forward"]["flops_per_token"], forward_flops_per_token(named_shape("demo"), 32, Site::kRes, 0));
  for (const char* part : {"forward", "sae_step", "whole"}) EXPECT_GT(j[part]["tokens_per_second"], 0) << part;
  EXPECT_EQ(j["roofs"]["sae_product_flops_per_second"].is_null(), emulated());
  // The start puts the L0 where it is asked for, on one batch; the rows that are measured are others.
  EXPECT_NEAR(j["l0"]["measured"], 8, 2);
  // An emulated GPU's memory is all this process's, given in pages of 2 MiB like a real one's: five allocations here,
  // of the embedding, a layer, the source, the buffer and the trainer. The plan leaves out a few roundings to 256
  // bytes.
  const int64_t used = j["memory"]["used_bytes"], planned = j["memory"]["planned_bytes"];
  EXPECT_GT(used, 0);
  if (emulated()) {
    EXPECT_GE(used, planned - 4096);
    EXPECT_LE(used, planned + (5 << 21));
  }
}

TEST_P(BenchCommand, EveryPrecisionAndSite) {
  for (const Words& words : {Words{"--dtype", "f32", "--precision", "f32", "--site", "att"},
                             Words{"--dtype", "f32", "--site", "mlp", "--eager"}, Words{"--site", "pre"}})
    expect_outcome(run_binary(here(words)), 0);
  const Outcome tf32 = run_binary(here({"--precision", "tf32"}));
  if (GetParam() == "cpu") expect_outcome(tf32, 2, {"tf32", "GPUs"});
  else expect_outcome(tf32, 0);
}

TEST_P(BenchCommand, TheSameSeedGivesTheSameL0) {
  const TempFolder dir;
  expect_outcome(run_binary(here({"--seed", "1", "--json", dir / "a", "--quiet"})), 0);
  expect_outcome(run_binary(here({"--seed", "1", "--json", dir / "b", "--eager"})), 0);
  expect_outcome(run_binary(here({"--seed", "2", "--json", dir / "c"})), 0);
  EXPECT_EQ(read_json(dir / "a")["l0"], read_json(dir / "b")["l0"]);
  EXPECT_NE(read_json(dir / "a")["l0"], read_json(dir / "c")["l0"]);
}

TEST(Bench, ByTime) {
  const Outcome o = run_binary(tiny({"--seconds", "0.2", "--device", "cpu"}));
  expect_outcome(o, 0);
}

TEST(Bench, QuietSaysTheResultAlone) {
  const Outcome o = run_binary(tiny({"--quiet", "--device", "cpu"}));
  expect_outcome(o, 0);
  EXPECT_EQ(o.err, "");
  EXPECT_EQ(o.out.find("memory plan"), std::string::npos);
  EXPECT_NE(o.out.find("whole"), std::string::npos);
}

TEST(Bench, WhatDoesNotFitIsSaidAtOnce) {
  const Outcome o = run_binary({"bench", "--shape", "27b", "--width", "16m", "--device", "cpu"});
  expect_outcome(o, 1, {"memory plan", "SAE parameters and optimizer", "does not fit", "--width"});
}

TEST(Bench, AnExistingFileIsKept) {
  const TempFolder dir;
  write_bytes(dir / "j", "mine");
  expect_outcome(run_binary(tiny({"--json", dir / "j", "--device", "cpu"})), 1, {dir / "j", "--force"});
  EXPECT_EQ(read_bytes(dir / "j"), "mine");
  expect_outcome(run_binary(tiny({"--json", dir / "j", "--device", "cpu", "--force"})), 0);
  EXPECT_EQ(read_json(dir / "j")["shape"], "demo");
}

TEST(Bench, ADeviceThatIsNotOne) { expect_outcome(run_binary({"bench", "--device", "tpu"}), 2, {"--device tpu"}); }

struct Impossible {
  Words words;
  Words parts;  // of the message
};
void PrintTo(const Impossible& p, std::ostream* out) {
  for (const std::string& word : p.words) *out << word << " ";
}
class BenchImpossible : public testing::TestWithParam<Impossible> {};

TEST_P(BenchImpossible, IsAUsageError) {
  Words words{"bench", "--shape", "demo", "--device", "cpu"};
  words.insert(words.end(), GetParam().words.begin(), GetParam().words.end());
  expect_outcome(run_binary(words), 2, GetParam().parts);
}

INSTANTIATE_TEST_SUITE_P(
    Options, BenchImpossible,
    testing::Values(Impossible{{"--layer", "6"}, {"--layer 6", "0 to 5"}},
                    Impossible{{"--layer", "0-2"}, {"--layer 0-2", "one layer"}},
                    Impossible{{"--site", "res,mlp"}, {"res,mlp", "one site"}},
                    Impossible{{"--site", "nowhere"}, {"nowhere", "attn_out"}},
                    Impossible{{"--width", "0"}, {"--width 0"}}, Impossible{{"--width", "64"}, {"--width 64", "--l0"}},
                    Impossible{{"--l0", "0"}, {"--l0 0"}}, Impossible{{"--l0", "17k"}, {"--l0 17k", "16384"}},
                    Impossible{{"--batch", "0"}, {"--batch 0"}}, Impossible{{"--context", "1"}, {"--context 1"}},
                    Impossible{{"--context", "2000"}, {"--context 2000", "1024"}},
                    Impossible{{"--model-batch", "0"}, {"--model-batch 0"}},
                    Impossible{{"--buffer", "5k"}, {"--buffer 5000", "at least", "a batch"}},
                    Impossible{{"--steps", "0"}, {"--steps 0"}}, Impossible{{"--seconds", "0"}, {"--seconds 0"}},
                    Impossible{{"--steps", "2", "--seconds", "2"}, {"--seconds", "--steps"}},
                    Impossible{{"--precision", "tf32"}, {"tf32", "GPUs"}},
                    Impossible{{"--shape", "7b"}, {"--shape", "27b"}}, Impossible{{"--dtype", "f16"}, {"--dtype"}}));

}  // namespace
}  // namespace gsae::test
