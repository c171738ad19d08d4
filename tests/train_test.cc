// What `train` gives, through the binary: the parameters that autograd reached, the folder of a run, the same bytes for
// the same seed. tests/train_failures_test.cc holds what goes wrong.
#include <fmt/format.h>

#include <cmath>
#include <set>
#include <sstream>

#include "io/json.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "kernels/matmul.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tests/run_binary.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// A run on the bundled model and corpus that ends in a second or two.
Words demo_run(const std::string& out, const Words& more = {}) {
  Words words{"train", "--model", "demo",      "--layer", "3",         "--width", "256",  "--l0",
              "8",     "--batch", "512",       "--steps", "6",         "--out",   out,    "--eval-contexts",
              "0",     "--quiet", "--threads", "1",       "--context", "128",     "--lr", "0.002"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

std::set<std::string> files_below(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (!entry.is_directory()) names.insert(fs::relative(entry.path(), folder).string());
  return names;
}

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_bytes(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

// The one params.npz below a run's folder.
std::string params_below(const std::string& folder) {
  std::string found;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().filename() != "params.npz") continue;
    EXPECT_EQ(found, "") << "two results";
    found = entry.path().string();
  }
  EXPECT_NE(found, "") << "no result in " << folder;
  return found;
}

// Each golden on each device, by each kind of step.
struct TrainGolden : testing::TestWithParam<std::tuple<std::string, Device, std::string>> {
  void SetUp() override { require(std::get<1>(GetParam())); }
};

// What autograd in float64 reached in 100 steps (tests/data/make_sae.py), by the command that trains. f32: within 1e-4
// of each tensor's largest magnitude, and of each loss, the project's tolerance for these goldens.
TEST_P(TrainGolden, FromSavedActivationsInFileOrder) {
  constexpr double kTolerance = 1e-4;
  const auto& [golden, device, kind] = GetParam();
  const std::string folder = test_data("sae/" + std::string(golden));
  const auto config = read_json(folder + "/config.json");
  const auto number = [&](const char* key) { return config.at(key).dump(); };  // the shortest that reads back the same
  const bool quadratic = config.at("penalty") == "quadratic";
  const TempFolder dir;
  Words words{"train",
              "--activations",
              folder + "/activations.safetensors",
              "--init",
              folder + "/init.safetensors",
              "--no-shuffle",
              "--input-scale",
              number("input_scale"),
              "--steps",
              number("steps"),
              "--batch",
              number("batch"),
              "--width",
              number("F"),
              "--lr",
              number("lr"),
              "--lr-warmup",
              number("lr_warmup_steps"),
              "--sparsity-warmup",
              number("lambda_warmup_steps"),
              "--bandwidth",
              number("bandwidth"),
              "--lambda",
              number("lambda"),
              "--preset",
              quadratic ? "gemma-scope-2" : "gemma-scope",
              "--precision",
              "f32",
              "--sae-step",
              kind,
              "--log-every",
              "1",
              "--threads",
              "1",
              "--device",
              name(device),
              "--out",
              dir / "run"};
  if (quadratic) words.insert(words.end(), {"--l0", number("target_l0")});
  expect_outcome(run_binary(words), 0);

  const SafetensorsFile expected(folder + "/expected.safetensors");
  const std::vector<nlohmann::json> log = lines_of(dir / "run/train.jsonl");
  ASSERT_EQ(log.size(), 100u);
  for (const char* key : {"loss", "mse", "l0"}) {
    const std::vector<float> want = to_f32(expected.get(key));
    for (size_t s = 0; s < log.size(); ++s)
      EXPECT_NEAR(log[s].at(key).get<double>(), want[s], kTolerance * want[s]) << key << " of step " << s;
  }
  const auto got = read_npz(params_below(dir / "run"));
  for (const char* tensor : {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}) {
    const std::vector<float> want = to_f32(expected.get(std::string("folded/") + tensor));
    const NpzArray& array = got.at(tensor);
    ASSERT_EQ(array.values.size(), want.size()) << tensor;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::fabs(double(want[i])));
      worst = std::max(worst, std::fabs(double(array.values[i]) - want[i]));
    }
    EXPECT_LE(worst, kTolerance * largest) << tensor << ": largest magnitude " << largest;
    EXPECT_GT(largest, 0) << tensor;
  }
  // a batch of the golden's early, dense steps does not fit the lists
  EXPECT_EQ(log.back().at("step_kind"), kind);
}

INSTANTIATE_TEST_SUITE_P(Cases, TrainGolden,
                         testing::Combine(testing::Values("gemma_scope", "quadratic_l0"), testing::ValuesIn(devices()),
                                          testing::Values("dense", "sparse")),
                         [](const auto& p) {
                           return std::get<0>(p.param) + "_" + name(std::get<1>(p.param)) + "_" + std::get<2>(p.param);
                         });

TEST(Train, TheFolderOfARun) {
  const TempFolder dir;
  const std::string run = dir / "run";
  Words words = demo_run(run, {"--log-every", "4", "--seed", "7", "--sae-step", "dense"});
  *(std::find(words.begin(), words.end(), "--eval-contexts") + 1) = "5";
  const Outcome o = run_binary(words);
  expect_outcome(o, 0);
  EXPECT_EQ(o.err, "");  // --quiet: results only
  for (const char* part : {"FVU", "res.3/256/l0_8", "wrote "}) EXPECT_NE(o.out.find(part), std::string::npos) << part;
  EXPECT_EQ(o.out.find("memory plan"), std::string::npos);

  const std::string params = params_below(run), sae = fs::path(params).parent_path();
  const auto evaluation = read_json(sae + "/eval.json"), description = read_json(sae + "/config.json");
  const double l0 = evaluation.at("l0").at("value");
  EXPECT_EQ(sae, fmt::format("{}/layer_3/width_256/average_l0_{:.0f}", run, l0));
  const std::string at = fs::relative(sae, run).string() + "/";
  EXPECT_EQ(files_below(run), (std::set<std::string>{"config.json", "run.json", "train.jsonl", at + "params.npz",
                                                     at + "config.json", at + "eval.json", at + "density.npy"}));
  EXPECT_NE(o.out.find("wrote " + sae), std::string::npos) << o.out;

  // one line for every four steps, and the last
  const std::vector<nlohmann::json> log = lines_of(run + "/train.jsonl");
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0].at("step"), 4);
  EXPECT_EQ(log[1].at("step"), 6);
  EXPECT_EQ(log[1].at("tokens"), 6 * 512);
  for (const auto& line : log)
    for (const auto& [key, value] : line.items()) {
      if (key == "sae") EXPECT_EQ(value, "res.3/256/l0_8");
      else if (key == "step_kind") EXPECT_EQ(value, "dense");
      else if (key == "entries") EXPECT_TRUE(value.is_null());
      else EXPECT_TRUE(value.is_number() && std::isfinite(value.get<double>())) << key << ": " << value;
    }
  EXPECT_GT(log[1].at("tokens_per_second"), 0);

  // everything resolved: what was typed, and defaults that nobody typed
  const auto config = read_json(run + "/config.json");
  EXPECT_EQ(config.at("version"), GSAE_VERSION);
  EXPECT_EQ(config.at("seed"), 7);
  EXPECT_EQ(config.at("steps"), 6);
  EXPECT_EQ(config.at("batch"), 512);
  EXPECT_EQ(config.at("context"), 128);
  EXPECT_EQ(config.at("eval_loss_contexts"), 5);  // of one SAE: all
  ASSERT_EQ(config.at("saes").size(), 1u);
  const auto& record = config.at("saes").at(0);
  EXPECT_EQ(record.at("name"), "res.3/256/l0_8");
  EXPECT_EQ(record.at("layer"), 3);
  EXPECT_EQ(record.at("site"), "res");
  EXPECT_EQ(record.at("latents"), 256);
  EXPECT_EQ(record.at("width"), 192);
  EXPECT_NE(config.at("data").at(0).get<std::string>().find("corpus.jsonl.zst"), std::string::npos);
  EXPECT_GT(config.at("buffer_rows"), 0);
  EXPECT_EQ(record.at("recipe").at("lr"), 0.002);
  EXPECT_EQ(record.at("recipe").at("target_l0"), 8);
  EXPECT_GT(record.at("recipe").at("bandwidth"), 0);
  EXPECT_EQ(description.at("sae"), record.at("name"));
  EXPECT_EQ(description.at("tokens"), 6 * 512);
  EXPECT_EQ(description.at("average_l0"), l0);
  EXPECT_GT(description.at("lambda"), 0);  // where the controller had it at the end
  EXPECT_EQ(description.at("input_scale"), record.at("input_scale"));

  // folded: rows of unit norm, and on raw activations what eval.json says, by the command that evaluates (in f32, if
  // not told otherwise)
  const auto arrays = read_npz(params);
  for (int64_t i = 0; i < 256; ++i) {
    double square = 0;
    for (int64_t c = 0; c < 192; ++c) square += std::pow(double(arrays.at("W_dec").values[i * 192 + c]), 2);
    EXPECT_NEAR(std::sqrt(square), 1, 1e-6) << "row " << i;
  }
  expect_outcome(run_binary({"eval", "--model", "demo", "--sae", run, "--contexts", "5", "--context", "128", "--seed",
                             "7", "--dtype", "bf16", "--threads", "1", "--quiet", "--json", dir / "again.json"}),
                 0);
  const auto again = read_json(dir / "again.json"), of_sae = again.at("saes").at(0);
  EXPECT_EQ(again.at("lm_loss"), evaluation.at("lm_loss"));
  for (const char* key : {"l0", "fvu", "delta_loss", "dead", "density"})
    EXPECT_EQ(of_sae.at(key), evaluation.at(key)) << key;
}

// The bytes depend on the seed, and neither on the time nor on the number of threads.
TEST(Train, ASeedGivesItsBytesWhateverTheThreads) {
  const TempFolder dir;
  const auto bytes = [&](const std::string& out, const Words& more) {
    Words words = demo_run(dir / out, more);
    for (const char* option : {"--threads", "--batch"})  // given again by `more`
      words.erase(std::find(words.begin(), words.end(), option), std::find(words.begin(), words.end(), option) + 2);
    expect_outcome(run_binary(words, {{"OMP_WAIT_POLICY", "passive"}}), 0);
    return read_bytes(params_below(dir / out));
  };
  const std::string one = bytes("one", {"--seed", "1", "--threads", "1", "--batch", "2048"});
  EXPECT_EQ(one, bytes("again", {"--seed", "1", "--threads", "1", "--batch", "2048"}));
  if (cpu::has_bf16_products()) {  // oneDNN's product for AVX2 splits its sums among the threads (kernels/matmul.h)
    EXPECT_EQ(one, bytes("two", {"--seed", "1", "--threads", "2", "--batch", "2048"}));
    EXPECT_EQ(one, bytes("three", {"--seed", "1", "--threads", "3", "--batch", "2048"}));
  }
  EXPECT_NE(one, bytes("other", {"--seed", "2", "--threads", "1", "--batch", "2048"}));
}

TEST(Train, OptionsFromAFileThatTheCommandLineOverrules) {
  const TempFolder dir;
  write_bytes(dir / "run.toml", fmt::format(R"(# a run
model = "demo"
layer = 1
site = "mlp"
width = "128"
l0 = 8
tokens = "1M"        # the command line says --steps
batch = 512
context = 64
eval-contexts = 0
no-shuffle = true
skip-bad = false
quiet = true
seed = 3
threads = 1
out = "{}"
)",
                                            dir / "from_file"));
  const Outcome o =
      run_binary({"train", "--config", dir / "run.toml", "--steps", "2", "--seed", "4", "--out", dir / "run"});
  expect_outcome(o, 0);
  EXPECT_EQ(o.err, "");
  EXPECT_FALSE(fs::exists(dir / "from_file"));
  const auto config = read_json(dir / "run/config.json");
  EXPECT_EQ(config.at("saes").at(0).at("name"), "mlp.1/128/l0_8");
  EXPECT_EQ(config.at("tokens"), 1024);
  EXPECT_EQ(config.at("shuffle"), false);
  EXPECT_EQ(config.at("seed"), 4);

  const auto refused = [&](const std::string& text, std::vector<std::string> parts) {
    write_bytes(dir / "bad.toml", text);
    parts.push_back("bad.toml");
    expect_outcome(run_binary({"train", "--config", dir / "bad.toml", "--out", dir / "none"}), 2, parts);
  };
  refused("widht = \"16k\"\n", {"'widht'", "--help"});
  refused("[train]\nwidth = \"16k\"\n", {"[train]", "sections"});
  refused("steps = 4\ntokens = 400\n", {"--steps", "--tokens"});
  refused("quiet = maybe\n", {"quiet", "true or false"});
  write_bytes(dir / "list.toml", "width = [\"128\", \"no\"]\n");  // as --width 128,no
  expect_outcome(run_binary({"train", "--config", dir / "list.toml"}), 2, {"width 'no'", "16k"});
  const Outcome bad = run_binary({"train", "--config", dir / "missing.toml"});
  expect_outcome(bad, 2, {"missing.toml"});
}

// Saved activations say where they come from, and the result repeats it.
TEST(Train, WhatIsLearnedFromSavedActivationsIsNamedAfterThem) {
  const TempFolder dir;
  const Words save{"activations", "--model",   "demo",      "--layer", "2",
                   "--site",      "att",       "--context", "64",      "--rows",
                   "1260",        "--threads", "1",         "--out",   dir / "a.safetensors"};
  expect_outcome(run_binary(save), 0);
  const Words run{"train",
                  "--activations",
                  dir / "a.safetensors",
                  "--width",
                  "128",
                  "--l0",
                  "8",
                  "--batch",
                  "256",
                  "--steps",
                  "8",
                  "--threads",
                  "1",
                  "--out"};
  Words words = run;
  words.push_back(dir / "run");
  expect_outcome(run_binary(words), 0, {"read once", "starts again"});  // 8 batches of 256 from 1260 rows
  const auto config = read_json(dir / "run/config.json");
  EXPECT_EQ(config.at("saes").at(0).at("name"), "att.2/128/l0_8");
  EXPECT_EQ(config.at("saes").at(0).at("width"), 256);
  EXPECT_TRUE(fs::exists(dir / "run/layer_2/width_128"));
  words.back() = dir / "other";
  words.insert(words.end(), {"--layer", "3", "--site", "att"});
  expect_outcome(run_binary(words), 1, {"att.2", "att.3"});
  EXPECT_FALSE(fs::exists(dir / "other"));
}

// No more than was planned and 5 %, at a shape where what is planned is most of it.
TEST(Train, PeakMemoryIsWithinThePlan) {
  if (kSanitized) GTEST_SKIP() << "AddressSanitizer's own memory is no part of the plan";
  const TempFolder dir;
  const std::vector<float> rows(2048 * 64, 1.0f);
  std::vector<float> varied = rows;
  for (size_t i = 0; i < varied.size(); ++i) varied[i] = std::sin(float(i * i % 1013));
  SafetensorsWriter writer(dir / "a.safetensors", {{"activations", "F32", {2048, 64}}});
  writer.append("activations", varied.data(), varied.size() * sizeof(float));
  writer.close();
  const Outcome o = run_binary({"train", "--activations", dir / "a.safetensors", "--width", "64k", "--l0", "32",
                                "--batch", "1024", "--steps", "3", "--threads", "1", "--out", dir / "run"});
  expect_outcome(o, 0);
  const auto gibibytes = [&](const std::string& before) {
    const size_t at = o.out.find(before);
    if (at == std::string::npos) throw Error(before + " is not in " + o.out);
    std::istringstream text(o.out.substr(at + before.size()));
    double value = 0;
    std::string unit;
    text >> value >> unit;
    return unit.starts_with("GiB") ? value : value / 1024;
  };
  const double planned = gibibytes("planned "), peak = gibibytes("peak resident memory ");
  EXPECT_GT(planned, 0.4) << o.out;
  EXPECT_LE(peak, 1.05 * planned) << o.out;
  EXPECT_GE(peak, 0.5 * planned) << "the plan says much more than is needed: " << o.out;
}

}  // namespace
}  // namespace gsae::test
