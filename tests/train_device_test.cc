// `train` on a GPU, through the binary: the run that the CPU makes, within what rounding allows; graphs and single ops,
// and one run and the next, to the bit.
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <sstream>

#include "io/json.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "tests/harness.h"
#include "tests/run_binary.h"
#include "tests/small_corpus.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

// Four steps behind both kinds of layers: the passes of the model and the steps are replays from the third on.
Words small_run(const std::string& out, const Words& more = {}) {
  const std::string data = out + ".jsonl";
  write_bytes(data, documents());
  Words words{"train", "--model",       "demo", "--data",      data, "--layer",         "1",     "--width",
              "128",   "--l0",          "8",    "--batch",     "64", "--steps",         "4",     "--context",
              "32",    "--model-batch", "2",    "--log-every", "1",  "--eval-contexts", "0",     "--lr",
              "0.002", "--seed",        "3",    "--threads",   "1",  "--quiet",         "--out", out};
  for (size_t i = 0; i < more.size(); i += 2) {  // an option of `more` takes the place of one above
    const auto given = std::find(words.begin(), words.end(), more[i]);
    if (given != words.end()) given[1] = more[i + 1];
    else words.insert(words.end(), {more[i], more[i + 1]});
  }
  return words;
}
Words f32_run(const std::string& out, const std::string& device, const std::string& precision = "f32") {
  return small_run(out, {"--device", device, "--dtype", "f32", "--precision", precision});
}

// What a run left behind.
struct Result {
  std::vector<nlohmann::json> log;
  std::map<std::string, NpzArray> params;
  std::string bytes;  // of params.npz
  nlohmann::json config;

  explicit Result(const std::string& run) : config(read_json(run + "/config.json")) {
    std::istringstream text(read_bytes(run + "/train.jsonl"));
    for (std::string line; std::getline(text, line);) log.push_back(nlohmann::json::parse(line));
    for (const auto& entry : fs::recursive_directory_iterator(run))
      if (entry.path().filename() == "params.npz") {
        params = read_npz(entry.path().string());
        bytes = read_bytes(entry.path().string());
      }
  }
  std::vector<double> metric(const char* key) const {
    std::vector<double> values;
    for (const auto& line : log) values.push_back(line.at(key));
    return values;
  }
};

Result run(const Words& words, const Words& parts = {}) {
  expect_outcome(run_binary(words), 0, parts);
  return Result(*(std::find(words.begin(), words.end(), "--out") + 1));
}

const std::vector<const char*> kMetrics{"loss", "mse", "l0", "fvu", "lambda"};

void expect_metrics(const Result& got, const Result& want, double tolerance) {
  ASSERT_EQ(got.log.size(), want.log.size());
  ASSERT_GT(got.log.size(), 0u);
  for (const char* key : {"step", "tokens", "epoch"}) EXPECT_EQ(got.metric(key), want.metric(key)) << key;
  for (const char* key : kMetrics)
    for (size_t s = 0; s < got.log.size(); ++s) {
      const double value = want.metric(key)[s];
      EXPECT_NEAR(got.metric(key)[s], value, tolerance * std::fabs(value)) << key << " of step " << s + 1;
    }
}

// Within `tolerance` of each tensor's largest magnitude.
void expect_params(const Result& got, const Result& want, double tolerance) {
  ASSERT_EQ(want.params.size(), 5u);
  for (const auto& [name, array] : want.params) {
    double largest = 0;
    for (const float v : array.values) largest = std::max(largest, std::fabs(double(v)));
    expect_close(got.params.at(name).values, array.values, 0, tolerance * largest);
  }
}

double rms_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double square = 0;
  for (size_t i = 0; i < a.size(); ++i) square += std::pow(double(a[i]) - b[i], 2);
  return std::sqrt(square / double(a.size()));
}

void expect_same_bits(const Result& got, const Result& want) {
  EXPECT_EQ(got.bytes, want.bytes);
  for (const char* key : kMetrics) EXPECT_EQ(got.metric(key), want.metric(key)) << key;
}

struct TrainOnGpu : OnDevice {};
ON_GPUS(TrainOnGpu);

// f32: the tolerance of the goldens; the same tokens, rows and scale. bf16, in which a GPU rounds between the model's
// products where the CPU does not: parameters at most twice as far from those of the f32 run as the CPU's own bf16 ones
// (Adam turns a gradient's sign into a step, so they are not near each other), and losses within two percent.
TEST_P(TrainOnGpu, IsTheRunOfTheCpu) {
  const TempFolder dir;
  const Result cpu = run(f32_run(dir / "cpu", "cpu")), gpu = run(f32_run(dir / "gpu", "cuda"));
  expect_metrics(gpu, cpu, 1e-4);
  expect_params(gpu, cpu, 1e-4);
  const double scale = cpu.config.at("saes").at(0).at("input_scale");
  EXPECT_NEAR(gpu.config.at("saes").at(0).at("input_scale"), scale, 1e-5 * scale);
  EXPECT_EQ(gpu.config.at("buffer_rows"), cpu.config.at("buffer_rows"));

  // tf32, operands of ten bits: what the first step measures, before Adam makes steps of signs, is off by a few of the
  // thousand latents that fire, of which one is 0.1 %. Then no further than bf16 is.
  const Result tf32 = run(f32_run(dir / "tf32", "cuda", "tf32"));
  EXPECT_EQ(tf32.config.at("precision"), "tf32");
  for (const char* key : {"mse", "fvu", "l0"})
    for (size_t s = 0; s < gpu.log.size(); ++s) {
      const double value = gpu.metric(key)[s], tolerance = s == 0 ? 0.004 : 0.02;
      EXPECT_NEAR(tf32.metric(key)[s], value, tolerance * value) << key << " of step " << s + 1;
    }

  const Result narrow_cpu = run(small_run(dir / "narrow_cpu", {"--device", "cpu"})),
               narrow_gpu = run(small_run(dir / "narrow_gpu", {"--device", "cuda"}));
  for (const auto& [name, array] : cpu.params) {
    const double naive = rms_difference(narrow_cpu.params.at(name).values, array.values);
    EXPECT_LE(rms_difference(narrow_gpu.params.at(name).values, array.values), 2 * naive) << name;
  }
  for (const char* key : {"mse", "fvu", "l0"})
    for (size_t s = 0; s < cpu.log.size(); ++s) {
      const double value = narrow_cpu.metric(key)[s];
      EXPECT_NEAR(narrow_gpu.metric(key)[s], value, 0.02 * value) << key << " of step " << s + 1;
    }
}

TEST_P(TrainOnGpu, GraphsAndRepetitionsAreTheSameBits) {
  const TempFolder dir;
  const Result first = run(small_run(dir / "first", {"--device", "cuda"}));
  expect_same_bits(run(small_run(dir / "again", {"--device", "cuda:0"})), first);
  Words eager = small_run(dir / "eager", {"--device", "cuda"});
  eager.push_back("--eager");
  expect_same_bits(run(eager), first);
}

// Tiles of rows, a recording for a profiler, an evaluation with the memory that training gave back: a whole run, which
// uses what it planned. An allocation takes whole pages of 2 MiB, of which there is one for each layer's weights, and
// one each for the embedding, the rows, the SAE, the buffer, the transfers.
TEST_P(TrainOnGpu, AWholeRunWithinItsPlan) {
  const TempFolder dir;
  Words words = small_run(dir / "run", {"--device", "cuda", "--profile-steps", "2:4", "--eval-contexts", "3"});
  words.erase(std::find(words.begin(), words.end(), "--quiet"));
  const Outcome o = run_binary(words);
  expect_outcome(o, 0);
  std::ifstream file(dir / "run/products.txt");
  const std::string products((std::istreambuf_iterator<char>(file)), {});
  EXPECT_NE(products.find("bf16 a b^T -> f32, bias: algorithm"), std::string::npos) << products;
  for (const char* part : {"memory plan of cuda:0", "in the host's memory", "FVU", "res.1/128/l0_8", "wrote "})
    EXPECT_NE(o.out.find(part), std::string::npos) << part << " is not in " << o.out;
  const auto mebibytes = [&](const std::string& before) {
    const size_t at = o.out.find(before);
    if (at == std::string::npos) throw Error(before + " is not in " + o.out);
    std::istringstream text(o.out.substr(at + before.size()));
    double value = 0;
    std::string unit;
    text >> value >> unit;
    EXPECT_TRUE(unit.starts_with("MiB")) << unit;
    return value;
  };
  const double used = mebibytes("device memory used "), planned = mebibytes("(planned ");
  EXPECT_GE(used, planned);
  EXPECT_LE(used, planned + 2 * (6 + 10)) << o.out;
}

// Half of the emulated GPU's memory is the workspace: nothing else fits, and that is said before anything is written.
TEST_P(TrainOnGpu, TooLittleMemoryIsAnErrorBeforeTheWork) {
  if (!emulated(ctx)) GTEST_SKIP() << "whatever GPU this is, it has more memory";
  const TempFolder dir;
  const Words words = small_run(dir / "run", {"--device", "cuda", "--width", "64k"});
  const std::map<std::string, std::string> small{{"GSAE_EMULATED_MEMORY", std::to_string(64 << 20)}};
  expect_outcome(run_binary(words, small), 1, {"memory plan of cuda:0", "does not fit", "--width"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  const std::map<std::string, std::string> none{{"GSAE_EMULATED_MEMORY", std::to_string(35 << 20)}};
  expect_outcome(run_binary(words, none), 1, {"out of device memory", "--width"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

}  // namespace
}  // namespace gsae::test
