#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/json.h"
#include "io/safetensors.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tests/run_binary.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// A suite on the bundled model and corpus that ends in a second or two. The buffer is given: what is chosen depends on
// how many places share the memory.
Words demo_suite(const std::string& out, const Words& more) {
  Words words{"train",    "--model", "demo",    "--batch",   "256",         "--steps",   "5",
              "--buffer", "2k",      "--quiet", "--threads", "1",           "--context", "128",
              "--lr",     "0.002",   "--dtype", "f32",       "--precision", "f32",       "--eval-contexts",
              "0",        "--out",   out};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// What a run left of each SAE, by its name: the bytes of its parameters, and its lines of the log without what was
// measured of the time.
struct Result {
  std::string parameters, log;
  bool operator==(const Result&) const = default;
};
std::map<std::string, Result> results_of(const std::string& run) {
  std::map<std::string, Result> results;
  for (const auto& entry : fs::recursive_directory_iterator(run)) {
    if (entry.path().filename() != "params.npz") continue;
    const std::string name = read_json((entry.path().parent_path() / "config.json").string()).at("sae");
    EXPECT_TRUE(results.emplace(name, Result{read_bytes(entry.path()), ""}).second) << name << " twice";
  }
  std::istringstream text(read_bytes(run + "/train.jsonl"));
  for (std::string line; std::getline(text, line);) {
    nlohmann::json j = nlohmann::json::parse(line);
    for (const char* timing : {"tokens_per_second", "model_seconds", "sae_seconds", "roof_fraction"}) j.erase(timing);
    results.at(j.at("sae")).log += j.dump() + "\n";
  }
  return results;
}

// The promise of docs/suites.md: an SAE of a suite is the one that it would be alone, byte for byte, and so is what the
// log says of it; however many passes the suite is spread over.
TEST(TrainSuite, EachSaeIsTheOneThatItWouldBeAlone) {
  const TempFolder dir;
  expect_outcome(run_binary(demo_suite(dir / "all", {"--layer", "1,3", "--site", "res,att", "--width", "128,256",
                                                     "--l0", "4,8", "--log-every", "2"})),
                 0);
  const auto suite = results_of(dir / "all");
  EXPECT_EQ(suite.size(), 16u);
  for (const auto& [name, result] : suite) EXPECT_EQ(std::count(result.log.begin(), result.log.end(), '\n'), 3) << name;

  expect_outcome(run_binary(demo_suite(dir / "passes", {"--layer", "1,3", "--site", "res,att", "--width", "128,256",
                                                        "--l0", "4,8", "--log-every", "2", "--passes", "3"})),
                 0);
  EXPECT_TRUE(results_of(dir / "passes") == suite);

  for (const auto& [layer, site, width, l0] : {std::tuple{"1", "att", "128", "8"}, {"3", "res", "256", "4"}}) {
    const std::string out = dir / (std::string(layer) + site);
    expect_outcome(run_binary(demo_suite(
                       out, {"--layer", layer, "--site", site, "--width", width, "--l0", l0, "--log-every", "2"})),
                   0);
    const auto alone = results_of(out);
    ASSERT_EQ(alone.size(), 1u);
    EXPECT_TRUE(alone.begin()->second == suite.at(alone.begin()->first)) << alone.begin()->first;
  }
}

// SAEs of several sparsities may start from the same parameters, each from its own copy of them.
TEST(TrainSuite, SparsitiesStartFromTheSameGivenParameters) {
  const TempFolder dir;
  const std::string init = dir / "init.safetensors";
  constexpr int64_t d = 192, F = 128;
  std::vector<float> W_enc(d * F), W_dec(F * d), zeros(d), theta(F, 0.02f);
  for (int64_t i = 0; i < F; ++i) W_dec[i * d + i] = 1, W_enc[i * F + i] = 1.5f;
  SafetensorsWriter writer(init, {{"W_enc", "F32", {d, F}},
                                  {"W_dec", "F32", {F, d}},
                                  {"b_enc", "F32", {F}},
                                  {"b_dec", "F32", {d}},
                                  {"threshold", "F32", {F}}});
  const auto append = [&](const char* name, const std::vector<float>& values, int64_t n) {
    writer.append(name, values.data(), n * sizeof(float));
  };
  append("W_enc", W_enc, d * F), append("W_dec", W_dec, F * d);
  append("b_enc", zeros, F), append("b_dec", zeros, d), append("threshold", theta, F);
  writer.close();

  const Words words{"--layer", "1", "--width", "128", "--init", init, "--l0"};
  const auto with = [&](const std::string& l0) {
    Words all = words;
    all.push_back(l0);
    expect_outcome(run_binary(demo_suite(dir / l0, all)), 0);
    return results_of(dir / l0);
  };
  const auto suite = with("4,8");
  ASSERT_EQ(suite.size(), 2u);
  for (const char* l0 : {"4", "8"}) {
    const auto alone = with(l0);
    EXPECT_TRUE(alone.begin()->second == suite.at(alone.begin()->first)) << l0;
  }
  EXPECT_NE(suite.begin()->second.parameters, suite.rbegin()->second.parameters);
}

// Whatever is stopped is all there as it was.
TEST(TrainSuite, AnInterruptedSuiteKeepsAllItsSaes) {
  const TempFolder dir;
  Words words = demo_suite(dir / "run",
                           {"--layer", "1", "--site", "res,mlp", "--width", "64", "--l0", "4,8", "--log-every", "1"});
  *(std::find(words.begin(), words.end(), "--steps") + 1) = "100000";
  RunningBinary run(words);
  while (true) {  // until a step is logged
    std::error_code ignored;
    const auto size = fs::file_size(dir / "run/train.jsonl", ignored);
    if (!ignored && size > 0) break;
    usleep(20'000);
  }
  run.signal(SIGINT);
  const Outcome o = run.wait();
  expect_outcome(o, 130, {"the SAEs as they were", "interrupted"});
  const auto results = results_of(dir / "run");
  EXPECT_EQ(results.size(), 4u);
  for (const auto& [name, result] : results) EXPECT_FALSE(result.log.empty()) << name;
}

// And the log says which it was.
TEST(TrainSuite, TheKindOfStepCanBeForced) {
  const TempFolder dir;
  for (const std::string kind : {"dense", "sparse"}) {
    expect_outcome(
        run_binary(demo_suite(dir / kind, {"--layer", "1", "--width", "512", "--l0", "8", "--sae-step", kind})), 0);
    std::istringstream text(read_bytes(dir / (kind + "/train.jsonl")));
    std::string line;
    ASSERT_TRUE(std::getline(text, line));
    const auto j = nlohmann::json::parse(line);
    EXPECT_EQ(j.at("step_kind"), kind);
    EXPECT_EQ(j.at("entries").is_number(), kind == "sparse");
    if (kind == "sparse") {
      EXPECT_GE(j.at("entries").get<double>(), j.at("l0").get<double>());
    }
  }
}

}  // namespace
}  // namespace gsae::test
