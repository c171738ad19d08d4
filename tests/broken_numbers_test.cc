// Numbers that break, through `train`: who is to blame is said, nothing broken is written, what can be gone on from
// stays.
#include <cmath>
#include <cstring>
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

int64_t results(const std::string& run) {  // SAEs written
  int64_t count = 0;
  if (fs::exists(run))
    for (const auto& entry : fs::recursive_directory_iterator(run)) count += entry.path().filename() == "params.npz";
  return count;
}

// Finite weights whose activations are not: a post-norm that multiplies by 1.7e38 in layer 1.
TEST(BrokenNumbers, OfTheModel) {
  const TempFolder dir;
  const std::string model = dir / "model", out = dir / "run";
  fs::copy(demo_data("model"), model);
  std::string bytes = read_bytes(model + "/model.safetensors");
  {
    const SafetensorsFile file(model + "/model.safetensors");
    const StoredTensor& norm = file.get("model.layers.1.post_feedforward_layernorm.weight");
    ASSERT_EQ(norm.dtype, "BF16");
    const auto end = file.tensors().begin()->second.data;  // somewhere in the mapping, to find its start from
    const std::byte* first = end;
    for (const auto& [name, t] : file.tensors()) first = std::min(first, t.data);
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    const size_t at = 8 + header + static_cast<size_t>(norm.data - first);
    for (size_t i = 0; i < norm.bytes; i += 2) bytes[at + i] = 0x00, bytes[at + i + 1] = 0x7f;
  }
  write_bytes(model + "/model.safetensors", bytes);
  const Words words{"train", "--model", model,     "--layer",   "0,1",     "--width", "64",
                    "--l0",  "8",       "--steps", "4",         "--batch", "128",     "--context",
                    "32",    "--out",   out,       "--threads", "1",       "--quiet", "--eval-contexts",
                    "0"};
  const Outcome o = run_binary(words);
  expect_outcome(o, 1, {"res.1", "NaN or infinity", "the model"});
  EXPECT_EQ(o.err.find("diverged"), std::string::npos) << o.err;
  EXPECT_EQ(results(out), 0);
}

// (rows, 16) f32; row 1000 is `factor` times as long as it would be.
void write_activations(const std::string& path, float factor) {
  constexpr int64_t kRows = 4096, kWidth = 16;
  std::vector<float> x(kRows * kWidth);
  for (size_t i = 0; i < x.size(); ++i) x[i] = float(i * 7919 % 1013) / 500 - 1;
  for (int64_t c = 0; c < kWidth; ++c) x[1000 * kWidth + c] *= factor;
  SafetensorsWriter writer(path, {{"activations", "F32", {kRows, kWidth}}});
  writer.append("activations", x.data(), x.size() * sizeof(float));
  writer.close();
}

Words on_activations(const std::string& file, const std::string& out, const Words& more = {}) {
  Words words{"train", "--activations", file, "--width",   "64", "--batch", "256", "--steps",
              "14",    "--log-every",   "1",  "--threads", "1",  "--out",   out};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

nlohmann::json last_line(const std::string& run) {
  std::istringstream log(read_bytes(run + "/train.jsonl"));
  std::string line, last;
  while (std::getline(log, line)) last = line;
  return nlohmann::json::parse(last);
}

// A loss whose square overflows, of activations that are finite.
TEST(BrokenNumbers, OfTheSae) {
  const TempFolder dir;
  write_activations(dir / "a.safetensors", 1);
  const Outcome o =
      run_binary(on_activations(dir / "a.safetensors", dir / "run", {"--l0", "8", "--input-scale", "1e-25"}));
  expect_outcome(o, 1, {"64/l0_8", "diverged", "--lr", "activations are finite"});
  EXPECT_EQ(results(dir / "run"), 0);
}

// One activation of 100,000 times the usual length: counted and said; dropped where that is asked for, and the SAE is
// that of a run which never saw it.
TEST(BrokenNumbers, Outliers) {
  const TempFolder dir;
  const std::string file = dir / "a.safetensors";
  write_activations(file, 1e5f);
  Outcome o = run_binary(on_activations(file, dir / "counted", {"--l0", "8", "--input-scale", "2"}));
  expect_outcome(o, 0);
  EXPECT_NE((o.out + o.err).find("1 activations were longer than 10000 times"), std::string::npos) << o.out << o.err;
  EXPECT_NE((o.out + o.err).find("--max-norm-multiple"), std::string::npos);
  EXPECT_EQ(last_line(dir / "counted").at("outliers"), 1);
  EXPECT_EQ(last_line(dir / "counted").at("dropped"), 0);

  o = run_binary(
      on_activations(file, dir / "dropped", {"--l0", "8", "--input-scale", "2", "--max-norm-multiple", "50"}));
  expect_outcome(o, 0);
  EXPECT_NE((o.out + o.err).find("1 activations were longer than 50 times"), std::string::npos) << o.out << o.err;
  EXPECT_EQ(last_line(dir / "dropped").at("dropped"), 1);
  EXPECT_LT(last_line(dir / "dropped").at("mse"), 1e3);
  EXPECT_GT(last_line(dir / "counted").at("mse"), 0);
}

}  // namespace
}  // namespace gsae::test
