#include <fmt/format.h>

#include "io/json.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "kernels/matmul.h"
#include "tests/command.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tools/evaluate.h"

namespace gsae::test {
namespace {

const std::string kGolden = test_data("eval/");
const std::vector<std::string> kTokens{"--data", kGolden + "tokens.npy", "--split", "all"};

CommandResult run_eval(std::vector<std::string> arguments) {
  std::vector<std::string> all{"eval", "--model", "demo", "--quiet"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  all.insert(all.end(), kTokens.begin(), kTokens.end());
  return run_command(all);
}

double value(const nlohmann::json& j) { return j.at("value").get<double>(); }
double error(const nlohmann::json& j) { return j.at("standard_error").get<double>(); }

// An SAE that never fires: x_hat = b_dec, whatever x.
std::string constant_sae(const TempFolder& dir, const std::string& name, float b_dec) {
  constexpr int64_t d = 192;
  const std::vector<float> zeros(d), bias(d, b_dec), threshold(1, 1e30f);
  write_npz(dir / name, {{"W_enc", {d, 1}, zeros.data()},
                         {"W_dec", {1, d}, zeros.data()},
                         {"b_enc", {1}, zeros.data()},
                         {"b_dec", {d}, bias.data()},
                         {"threshold", {1}, threshold.data()}});
  return dir / name;
}

struct EvalOn : OnDevice {};
ON_DEVICES(EvalOn);

// What transformers and PyTorch computed in f32 (tests/data/eval/expected.json), to the digits given:
// half a unit of the last one, and 1e-6 for the f32 of both. lm_loss needs it: in f64 it is
// 2.66841510, on the edge between two roundings.
TEST_P(EvalOn, ReproducesTheGolden) {
  if (emulated(ctx)) GTEST_SKIP() << "8192 tokens; the next test is for the emulation";
  const TempFolder dir;
  const CommandResult r = run_eval({"--sae", kGolden + "params.npz", "--layer", "3", "--site", "res", "--json",
                                    dir / "e.json", "--device", name(GetParam())});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(r.err, "");
  const auto want = read_json(kGolden + "expected.json"), got = read_json(dir / "e.json"), sae = got.at("saes").at(0);
  EXPECT_NEAR(value(sae.at("l0")), want.at("l0"), 5e-4 + 1e-6);
  EXPECT_NEAR(value(sae.at("fvu")), want.at("fvu"), 5e-6 + 1e-6);
  EXPECT_NEAR(value(got.at("lm_loss")), want.at("lm_loss"), 5e-6 + 1e-6);
  EXPECT_NEAR(value(sae.at("delta_loss")), want.at("delta_loss"), 5e-6 + 1e-6);
  EXPECT_NEAR(value(sae.at("loss_recovered")), want.at("loss_recovered"), 5e-6 + 1e-6);
  EXPECT_EQ(sae.at("dead"), want.at("dead"));
  EXPECT_EQ(sae.at("tokens"), want.at("tokens"));
  EXPECT_EQ(got.at("contexts"), 32);
  EXPECT_EQ(got.at("predicted_tokens"), 32 * 255);
  // The golden has no standard errors. Paired by context, that of the difference is far below that of
  // either loss; and each latent that fired is in one bin.
  EXPECT_LT(error(sae.at("delta_loss")), 0.25 * error(sae.at("spliced_loss")));
  int64_t counted = sae.at("dead_latents");
  for (const auto& bin : sae.at("density").at("latents")) counted += bin.get<int64_t>();
  EXPECT_EQ(counted, 4096);
  for (const char* text : {"FVU", "0.1903", "res.3 4k", "standard error"})
    EXPECT_NE(r.out.find(text), std::string::npos) << text << " is not in\n" << r.out;
}

// Both ways of evaluating, of two SAEs. Losses: f32 sums of a few hundred products in another order. A z that lies as
// near to its threshold may count on one device alone: one more or less.
TEST_P(EvalOn, AgreesWithTheCpu) {
  const TempFolder dir;
  const std::string constant = constant_sae(dir, "zero.npz", 0);
  const int64_t B = emulated(ctx) ? 2 : 4, T = emulated(ctx) ? 24 : 128;
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < B * T; ++i) ids.push_back(i % T == 0 ? 2 : int32_t(3 + i * 7919 % 1000));
  SafetensorsWriter data(dir / "tokens.safetensors", {{"tokens", "I32", {B, T}}});
  data.append("tokens", ids.data(), ids.size() * sizeof(int32_t));
  data.close();
  const auto run = [&](const std::string& device, const std::string& json, const std::vector<std::string>& more) {
    std::vector<std::string> words{
        "eval",    "--model", "demo",   "--quiet", "--data",    dir / "tokens.safetensors", "--split",  "all",
        "--layer", "3",       "--site", "res",     "--context", std::to_string(T),          "--device", device,
        "--json",  dir / json};
    words.insert(words.end(), {"--sae", kGolden + "params.npz", constant});
    words.insert(words.end(), more.begin(), more.end());
    const CommandResult r = run_command(words);
    EXPECT_EQ(r.status, 0) << r.err;
    return read_json(dir / json);
  };
  const auto cpu = run("cpu", "cpu.json", {}), got = run(name(GetParam()), "got.json", {});
  const auto metrics = run(name(GetParam()), "metrics.json", {"--no-losses"});
  EXPECT_EQ(got.at("predicted_tokens"), cpu.at("predicted_tokens"));
  EXPECT_NEAR(value(got.at("lm_loss")), value(cpu.at("lm_loss")), 1e-5);
  for (const size_t i : {0, 1}) {
    const auto &a = got.at("saes").at(i), &b = cpu.at("saes").at(i);
    const double tokens = b.at("tokens");
    EXPECT_EQ(a.at("tokens"), tokens);
    EXPECT_NEAR(value(a.at("l0")), value(b.at("l0")), 1.5 / tokens);
    for (const char* key : {"fvu", "cosine", "norm_ratio", "delta_loss", "loss_recovered",
                            "loss_recovered_mean_ablation", "delta_loss_zero_ablation", "delta_loss_mean_ablation"})
      EXPECT_NEAR(value(a.at(key)), value(b.at(key)), 2e-5 * std::max(1.0, std::fabs(value(b.at(key))))) << key;
    EXPECT_NEAR(value(a.at("mse")), value(b.at("mse")), 1e-5 * value(b.at("mse")));
    // the first pass takes no losses, and finds the same reconstruction
    for (const char* key : {"l0", "fvu", "mse", "dead", "density"})
      EXPECT_EQ(metrics.at("saes").at(i).at(key), a.at(key)) << key;
  }
  EXPECT_EQ(value(got.at("saes").at(1).at("loss_recovered")), 0);  // the zero ablation itself, to the bit
}

// x_hat = 0 is the zero ablation itself, to the bit; with another constant, all of it differs. Two
// SAEs in one run have the figures that each has alone, whatever the other's width.
TEST(Eval, ConstantReconstructions) {
  const TempFolder dir;
  const std::string zero = constant_sae(dir, "zero.npz", 0), seven = constant_sae(dir, "seven.npz", 7);
  const std::vector<std::string> place{"--layer", "1", "--site", "mlp", "--contexts", "5", "--json"};
  const auto run = [&](std::vector<std::string> arguments, const std::string& json) {
    arguments.insert(arguments.end(), place.begin(), place.end());
    arguments.push_back(dir / json);
    const CommandResult r = run_eval(arguments);
    EXPECT_EQ(r.status, 0) << r.err;
    return read_json(dir / json);
  };
  const auto both = run({"--sae", seven, zero}, "both.json");
  const auto alone = run({"--sae", zero}, "alone.json");
  const auto& s = both.at("saes").at(1);
  EXPECT_EQ(value(s.at("delta_loss")), value(s.at("delta_loss_zero_ablation")));
  EXPECT_EQ(value(s.at("loss_recovered")), 0);
  EXPECT_NE(value(both.at("saes").at(0).at("delta_loss")), value(s.at("delta_loss")));
  EXPECT_EQ(s, alone.at("saes").at(0));
  EXPECT_EQ(both.at("contexts"), 5);
  EXPECT_EQ(value(s.at("l0")), 0);
  EXPECT_EQ(s.at("dead"), 1);
  EXPECT_EQ(value(s.at("norm_ratio")), 0);
  EXPECT_GT(value(s.at("fvu")), 1);  // zero is worse than the mean

  // The first pass takes no losses, and finds the same reconstruction.
  auto metrics = run({"--sae", seven, zero, "--no-losses"}, "metrics.json").at("saes");
  for (const char* key : {"l0", "fvu", "mse", "dead", "density"}) EXPECT_EQ(metrics[1][key], s[key]) << key;
  EXPECT_FALSE(metrics[1].contains("delta_loss"));
}

// The mean of x as b_dec is the mean ablation: nothing is recovered, and the FVU is 1.
TEST(Eval, MeanAblation) {
  const TempFolder dir;
  const CommandResult a = run_command({"activations", "--model", "demo", "--layer", "2", "--site", "att", "--out",
                                       dir / "a.safetensors", "--data", kGolden + "tokens.npy"});
  ASSERT_EQ(a.status, 0) << a.err;
  const SafetensorsFile file(dir / "a.safetensors");
  const auto x = to_f32(file.get("att.2"));
  const int64_t d = file.get("att.2").shape[1], n = file.get("att.2").shape[0];
  EXPECT_EQ(n, 8158);
  std::vector<double> sum(d);
  for (int64_t i = 0; i < n * d; ++i) sum[i % d] += x[i];
  std::vector<float> mean(d), zeros(d), threshold(1, 1e30f);
  for (int64_t i = 0; i < d; ++i) mean[i] = float(sum[i] / double(n));
  write_npz(dir / "mean.npz", {{"W_enc", {d, 1}, zeros.data()},
                               {"W_dec", {1, d}, zeros.data()},
                               {"b_enc", {1}, zeros.data()},
                               {"b_dec", {d}, mean.data()},
                               {"threshold", {1}, threshold.data()}});
  const CommandResult r =
      run_eval({"--sae", dir / "mean.npz", "--layer", "2", "--site", "att", "--json", dir / "e.json"});
  ASSERT_EQ(r.status, 0) << r.err;
  const auto s = read_json(dir / "e.json").at("saes").at(0);
  EXPECT_NEAR(value(s.at("fvu")), 1, 1e-9);
  // The same pass twice: the same bits, but for oneDNN's product for AVX2, whose sums follow the threads.
  const double rounding = cpu::has_bf16_products() ? 0 : 1e-6;
  EXPECT_NEAR(value(s.at("delta_loss")), value(s.at("delta_loss_mean_ablation")), rounding);
  EXPECT_NEAR(value(s.at("loss_recovered_mean_ablation")), 0, rounding);
}

TEST(Eval, TheModelsOwnLoss) {
  const TempFolder dir;
  const CommandResult r = run_eval({"--json", dir / "e.json"});
  ASSERT_EQ(r.status, 0) << r.err;
  const auto got = read_json(dir / "e.json");
  EXPECT_NEAR(value(got.at("lm_loss")), read_json(kGolden + "expected.json").at("lm_loss"), 6e-6);
  EXPECT_TRUE(got.at("saes").empty());
  EXPECT_NE(r.out.find("2.67"), std::string::npos) << r.out;
}

TEST(Eval, RefusesWhatCannotBe) {
  const TempFolder dir;
  const std::string sae = constant_sae(dir, "s.npz", 0);
  const auto expect = [&](const std::vector<std::string>& arguments, int status, const char* message) {
    const CommandResult r = run_eval(arguments);
    EXPECT_EQ(r.status, status) << r.err;
    EXPECT_NE(r.err.find(message), std::string::npos) << "'" << message << "' is not in: " << r.err;
    EXPECT_EQ(r.out, "");
  };
  expect({"--sae", sae, "--site", "res"}, 2, "--layer");
  expect({"--sae", sae, "--layer", "3"}, 2, "--site");
  expect({"--sae", sae, "--layer", "6", "--site", "res"}, 2, "0 to 5");
  expect({"--sae", sae, "--layer", "1", "--site", "resid"}, 2, "attn_out");
  expect({"--sae", sae, "--layer", "1", "--site", "res,mlp"}, 2, "one site");
  expect({"--sae", sae, "--layer", "1", "--site", "att"}, 1, "256");  // 4 heads of 64; the SAE has 192
  expect({"--sae", sae, "--layer", "1", "--site", "res", "--contexts", "0"}, 2, "--contexts");
  expect({"--sae", dir / "nothing"}, 1, "nothing");
  expect({"--no-losses"}, 2, "--no-losses");
  expect({"--context", "2000"}, 2, "1024");
  write_bytes(dir / "there.json", "{}");
  expect({"--json", dir / "there.json"}, 1, "--force");
  EXPECT_EQ(read_bytes(dir / "there.json"), "{}");
}

TEST(Eval, NothingToEvaluateOn) {
  const TempFolder dir;
  write_bytes(dir / "short.txt", "A text of a few words.\n");
  const CommandResult r = run_command({"eval", "--model", "demo", "--data", dir / "short.txt", "--split", "all"});
  EXPECT_EQ(r.status, 1);
  EXPECT_NE(r.err.find("no whole context"), std::string::npos) << r.err;
}

}  // namespace
}  // namespace gsae::test
