#include <fmt/format.h>

#include <map>

#include "io/safetensors.h"
#include "tests/command.h"
#include "tests/harness.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kForward = test_data("forward/gqa2_window8");

std::vector<int32_t> integers(const StoredTensor& t) {
  EXPECT_EQ(t.dtype, "I32");
  std::vector<int32_t> v(t.bytes / sizeof(int32_t));
  std::memcpy(v.data(), t.data, t.bytes);
  return v;
}

// A safetensors file with the golden's tokens alone, as 2-D rows of tokens.
std::string golden_tokens(const TempFolder& dir, const std::vector<int32_t>& tokens, int64_t B, int64_t T) {
  SafetensorsWriter out(dir / "tokens.safetensors", {{"tokens", "I32", {B, T}}});
  out.append("tokens", tokens.data(), tokens.size() * sizeof(int32_t));
  out.close();
  return dir / "tokens.safetensors";
}

struct Golden {
  Golden() : file(kForward + "/expected.safetensors") {
    const StoredTensor& t = file.get("tokens");
    tokens = integers(t);
    B = t.shape[0], T = t.shape[1];
  }
  SafetensorsFile file;
  std::vector<int32_t> tokens;
  int64_t B, T;
};

struct ActivationsOn : OnDevice {};
ON_DEVICES(ActivationsOn);

// Every site and the logits, against transformers; the rows of BOS, EOS and padding left out.
TEST_P(ActivationsOn, MatchTheGoldensAtEverySite) {
  Golden golden;
  golden.tokens[golden.T + 3] = 1;  // EOS: the golden's later positions of this row do not hold any more
  const TempFolder dir;
  const std::string out = dir / "a.safetensors";
  const CommandResult r =
      run_command({"activations", "--model", kForward, "--data", golden_tokens(dir, golden.tokens, golden.B, golden.T),
                   "--context", std::to_string(golden.T), "--layer", "0-1", "--site",
                   "pre,att,attn_out,mlp_in,mlp,res,logits", "--out", out, "--device", name(GetParam())});
  ASSERT_EQ(r.status, 0) << r.err;
  const SafetensorsFile got(out);
  const auto tokens = integers(got.get("tokens")), sequence = integers(got.get("sequence")),
             position = integers(got.get("position"));
  std::vector<int64_t> rows;  // of the golden
  for (int64_t i = 0; i < golden.B * golden.T; ++i)
    if (golden.tokens[i] > 2) rows.push_back(i);
  ASSERT_EQ(tokens.size(), rows.size());
  std::vector<bool> comparable;
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(sequence[i], rows[i] / golden.T);
    EXPECT_EQ(position[i], rows[i] % golden.T);
    EXPECT_EQ(tokens[i], golden.tokens[rows[i]]);
    comparable.push_back(sequence[i] != 1 || position[i] < 3);
  }
  std::vector<std::string> names{"logits"};
  for (const char* site : {"pre", "att", "attn_out", "mlp_in", "mlp", "res"})
    for (const int layer : {0, 1}) names.push_back(fmt::format("{}.{}", site, layer));
  EXPECT_EQ(got.tensors().size(), names.size() + 3);
  for (const std::string& tensor : names) {
    const StoredTensor& t = got.get(tensor);
    ASSERT_EQ(t.dtype, "F32");
    const auto want = to_f32(golden.file.get(tensor)), values = to_f32(t);
    const int64_t d = t.shape[1];
    ASSERT_EQ(t.shape[0], int64_t(rows.size()));
    ASSERT_EQ(int64_t(want.size()), golden.B * golden.T * d);
    double largest = 0, worst = 0;
    for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
    for (size_t i = 0; i < rows.size(); ++i)
      for (int64_t c = 0; c < d && comparable[i]; ++c)
        worst = std::max(worst, std::fabs(double(values[i * d + c]) - want[rows[i] * d + c]));
    EXPECT_LE(worst, 2e-5 * largest) << tensor;  // f32's bound of the forward pass
  }
}

TEST(Activations, RowsSpecialTokensAndOverwriting) {
  const Golden golden;
  const TempFolder dir;
  const std::string tokens = golden_tokens(dir, golden.tokens, golden.B, golden.T), out = dir / "a.safetensors";
  std::vector<std::string> command{
      "activations", "--model", kForward, "--data", tokens, "--context", std::to_string(golden.T),
      "--layer",     "1",       "--out",  out};
  const auto run = [&](std::vector<std::string> more) {
    more.insert(more.begin(), command.begin(), command.end());
    return run_command(more);
  };
  CommandResult r = run({"--keep-special"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(integers(SafetensorsFile(out).get("tokens")), golden.tokens);

  const std::string before = read_bytes(out);
  r = run({});
  EXPECT_EQ(r.status, 1);
  EXPECT_NE(r.err.find("--force"), std::string::npos) << r.err;
  EXPECT_EQ(read_bytes(out), before);

  r = run({"--force", "--rows", "5"});
  ASSERT_EQ(r.status, 0) << r.err;
  const SafetensorsFile five(out);
  EXPECT_EQ(five.get("res.1").shape[0], 5);
  EXPECT_EQ(integers(five.get("position")), (std::vector<int32_t>{1, 2, 3, 4, 5}));  // no BOS
  EXPECT_EQ(five.metadata().at("dtype"), "f32");
}

// bf16, in which the two devices round at different places: as far from f32 as the CPU is, at most twice.
TEST_P(ActivationsOn, Bf16IsAsFarFromF32AsOnTheCpu) {
  const Golden golden;
  const TempFolder dir;
  const std::string tokens = golden_tokens(dir, golden.tokens, golden.B, golden.T);
  const auto rows = [&](const std::string& device, const std::string& dtype) {
    const std::string out = dir / (device + dtype);
    const CommandResult r =
        run_command({"activations", "--model", kForward, "--data", tokens, "--context", std::to_string(golden.T),
                     "--layer", "1", "--site", "res", "--out", out, "--device", device, "--dtype", dtype, "--force"});
    EXPECT_EQ(r.status, 0) << r.err;
    return to_f32(SafetensorsFile(out).get("res.1"));
  };
  const auto exact = rows("cpu", "f32");
  const auto error = [&](const std::vector<float>& v) {
    double sum = 0;
    for (size_t i = 0; i < exact.size(); ++i) sum += std::pow(double(v[i]) - exact[i], 2);
    return std::sqrt(sum / double(exact.size()));
  };
  const double naive = error(rows("cpu", "bf16"));
  EXPECT_GT(naive, 0);
  EXPECT_LE(error(rows(name(GetParam()), "bf16")), 2 * naive);
}

// More contexts than one forward pass takes are counted on.
TEST(Activations, SeveralBatches) {
  const TempFolder dir;
  const std::string data = test_data("eval/tokens.npy");  // 32 contexts of 256
  const CommandResult r = run_command({"activations", "--model", "demo", "--layer", "0", "--site", "mlp", "--data",
                                       data, "--keep-special", "--out", dir / "a.safetensors"});
  ASSERT_EQ(r.status, 0) << r.err;
  const SafetensorsFile file(dir / "a.safetensors");
  const auto sequence = integers(file.get("sequence")), position = integers(file.get("position"));
  ASSERT_EQ(sequence.size(), 32u * 256);
  for (size_t i = 0; i < sequence.size(); ++i) {
    ASSERT_EQ(sequence[i], int32_t(i / 256));
    ASSERT_EQ(position[i], int32_t(i % 256));
  }
}

TEST(Activations, RefusesWhatCannotBe) {
  const Golden golden;
  const TempFolder dir;
  const std::string tokens = golden_tokens(dir, golden.tokens, golden.B, golden.T);
  const auto expect = [&](std::vector<std::string> arguments, int status, const char* message) {
    arguments.insert(arguments.begin(),
                     {"activations", "--model", kForward, "--data", tokens, "--context", std::to_string(golden.T)});
    const CommandResult r = run_command(arguments);
    EXPECT_EQ(r.status, status) << r.err;
    EXPECT_NE(r.err.find(message), std::string::npos) << "'" << message << "' is not in: " << r.err;
  };
  const std::string out = dir / "a.safetensors";
  expect({"--layer", "0"}, 2, "--out");
  expect({"--out", out}, 2, "--layer");
  expect({"--out", out, "--layer", "99"}, 2, "0 to");
  expect({"--out", out, "--layer", "0", "--site", "logit"}, 2, "mlp_in");
  expect({"--out", out, "--layer", "0", "--rows", "0"}, 2, "--rows");
  expect({"--out", dir / "no/folder/a.safetensors", "--layer", "0"}, 1, "no/folder");
  EXPECT_EQ(dir.count(), 1);  // the tokens: nothing else was left
}

}  // namespace
}  // namespace gsae::test
