#include <fmt/format.h>

#include "io/json.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "kernels/matmul.h"
#include "tests/command.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tests/threads.h"
#include "tools/evaluate.h"
#include "tools/evaluation_summary.h"
#include "tools/lay_out.h"

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

// Contexts of pseudo-random tokens, as a file.
std::string random_tokens(const TempFolder& dir, int64_t B, int64_t T) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < B * T; ++i) ids.push_back(i % T == 0 ? 2 : int32_t(3 + i * 7919 % 1000));
  SafetensorsWriter data(dir / "tokens.safetensors", {{"tokens", "I32", {B, T}}});
  data.append("tokens", ids.data(), ids.size() * sizeof(int32_t));
  data.close();
  return dir / "tokens.safetensors";
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
  const std::string tokens = random_tokens(dir, B, T);
  const auto run = [&](const std::string& device, const std::string& json, const std::vector<std::string>& more) {
    std::vector<std::string> words{"eval",     "--model", "demo",   "--quiet", "--data", tokens,      "--split",
                                   "all",      "--layer", "3",      "--site",  "res",    "--context", std::to_string(T),
                                   "--device", device,    "--json", dir / json};
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

// SAEs of several layers and sites, each with the figures that it has alone, whatever its company and its order, and
// whether all are on the device or one at a time: to the bit.
TEST_P(EvalOn, EachOfASuiteAsAlone) {
  const Threads one(1);  // they wait for each other on a busy machine
  const TempFolder dir;
  const int64_t B = 2, T = emulated(ctx) ? 16 : 64, contexts = emulated(ctx) ? 3 : 5;
  const Gemma2 model(ctx, demo_data("model"), DType::kF32);
  std::vector<EvaluationTarget> targets;
  int loads = 0;
  const auto add = [&](Site site, int64_t layer, const std::string& path) {
    const SaeFile file = list_saes(path).at(0);
    targets.push_back({.name = name(site), .site = site, .layer = layer, .width = file.width, .latents = file.latents});
    targets.back().load = [file, &loads] { return ++loads, load_sae(file); };
  };
  add(Site::kRes, 3, kGolden + "params.npz");
  add(Site::kMlp, 1, constant_sae(dir, "three.npz", 3));
  add(Site::kRes, 3, constant_sae(dir, "seven.npz", 7));
  add(Site::kPre, 5, constant_sae(dir, "five.npz", 5));
  add(Site::kMlp, 1, constant_sae(dir, "zero.npz", 0));
  TokenStreamOptions text;
  text.files = {random_tokens(dir, contexts, T)};
  text.context = T, text.vocab_size = model.config().vocab, text.split = TokenStreamOptions::Split::kAll;
  Progress progress(true);
  const auto run = [&](std::span<const EvaluationTarget> of, int64_t bytes) {
    Buffer activations_memory, memory;
    const auto activations = allocate<Gemma2::Activations>(ctx.device(), activations_memory, model, B, T);
    const auto room = allocate<EvaluationMemory>(ctx.device(), memory, model, B, T, of);
    TokenStream stream(text);
    loads = 0;
    const Evaluation e = evaluate(ctx, model, *activations, *room, stream, of, {.bytes = bytes}, progress);
    EXPECT_EQ(loads, int(of.size()));
    EXPECT_EQ(e.contexts, contexts);
    return e;
  };
  const Evaluation all = run(targets, std::numeric_limits<int64_t>::max());
  EXPECT_GT(all.saes[0].metrics.l0.value, 1);
  for (const int64_t bytes : {int64_t{1}, measure<SaeParameters>(int64_t{192}, int64_t{4096}) + 8000}) {
    const Evaluation groups = run(targets, bytes);
    EXPECT_EQ(to_json(groups), to_json(all));
    ASSERT_EQ(groups.saes.size(), targets.size());
    for (size_t i = 0; i < targets.size(); ++i) EXPECT_EQ(to_json(groups, i), to_json(all, i)) << i << " of " << bytes;
  }
  // the zero ablation itself, in the pass of another layer than the one before it
  EXPECT_EQ(all.saes[4].loss.recovered_zero.value, 0);
  EXPECT_NE(all.saes[1].loss.recovered_zero.value, 0);
}

// Losses over the first contexts alone: those of a run over no more; and everything else that of a run without losses.
TEST_P(EvalOn, LossesOfTheFirstContexts) {
  if (GetParam() == Device::kCpu && !cpu::has_bf16_products())
    GTEST_SKIP() << "oneDNN's product for AVX2 sums in an order that follows the shape";
  const TempFolder dir;
  const int64_t T = emulated(ctx) ? 16 : 256, contexts = emulated(ctx) ? 5 : 20;
  const std::string tokens = random_tokens(dir, contexts, T);
  int runs = 0;
  const auto run = [&](const std::vector<std::string>& more) {
    const std::string json = dir / std::to_string(++runs) + ".json";
    std::vector<std::string> words{"eval",      "--model",
                                   "demo",      "--quiet",
                                   "--data",    tokens,
                                   "--split",   "all",
                                   "--layer",   "3",
                                   "--site",    "res",
                                   "--context", std::to_string(T),
                                   "--device",  name(GetParam()),
                                   "--sae",     kGolden + "params.npz",
                                   "--json",    json};
    words.insert(words.end(), more.begin(), more.end());
    const CommandResult r = run_command(words);
    EXPECT_EQ(r.status, 0) << r.err;
    return read_json(json);
  };
  const auto metrics = run({"--no-losses"}).at("saes").at(0);
  for (const int64_t first : emulated(ctx) ? std::vector<int64_t>{2} : std::vector<int64_t>{5, 8, 11}) {
    const auto some = run({"--loss-contexts", std::to_string(first)}), few = run({"--contexts", std::to_string(first)});
    EXPECT_EQ(some.at("contexts"), contexts);
    EXPECT_EQ(some.at("loss_contexts"), first);
    EXPECT_EQ(some.at("predicted_tokens"), first * (T - 1));
    EXPECT_EQ(some.at("lm_loss"), few.at("lm_loss"));
    const auto &a = some.at("saes").at(0), &b = few.at("saes").at(0);
    for (const char* key : {"spliced_loss", "delta_loss", "delta_loss_zero_ablation", "loss_recovered"})
      EXPECT_EQ(a.at(key), b.at(key)) << key << " of " << first;
    EXPECT_NE(a.at("fvu"), b.at("fvu"));
    for (const char* key : {"tokens", "contexts", "l0", "mse", "cosine", "norm_ratio", "dead_latents", "density"})
      EXPECT_EQ(a.at(key), metrics.at(key)) << key << " of " << first;
    // the sum of x, in f64, is one of sums over batches, which begin elsewhere
    EXPECT_NEAR(value(a.at("fvu")), value(metrics.at("fvu")), 1e-13);
  }
  const CommandResult r = run_eval({"--loss-contexts", "9", "--contexts", "8"});
  EXPECT_EQ(r.status, 2);
  EXPECT_NE(r.err.find("--loss-contexts 9: must be at most 8"), std::string::npos) << r.err;
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

// The mean is that of the first 64 contexts, however many a batch has: 20 of 100 tokens here.
TEST(Eval, TheMeanIsOfTheFirstContexts) {
  const TempFolder dir;
  const std::string sae = constant_sae(dir, "s.npz", 0);
  std::vector<double> deltas;
  for (const char* contexts : {"64", "80"}) {
    const CommandResult r =
        run_command({"eval", "--model", "demo", "--sae", sae, "--layer", "2", "--site", "res", "--context", "100",
                     "--contexts", contexts, "--loss-contexts", "4", "--force", "--json", dir / "e.json"});
    ASSERT_EQ(r.status, 0) << r.err;
    deltas.push_back(value(read_json(dir / "e.json").at("saes").at(0).at("delta_loss_mean_ablation")));
  }
  EXPECT_EQ(deltas[0], deltas[1]);
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
  expect({"--json", dir / "no/such.json", "--sae", dir / "nothing"}, 1, "such.json");  // before anything else
}

// Of another model by its own word: said, not refused. A path need not be UTF-8.
TEST(Eval, SaysWhoseSaeItIs) {
  const TempFolder dir;
  const std::string folder = dir / "a\xff";
  std::filesystem::create_directories(folder);
  std::filesystem::copy_file(constant_sae(dir, "s.npz", 0), folder + "/params.npz");
  for (const auto& [model, said] : {std::pair{"google/gemma-3-1b-pt", true}, {"demo", false}}) {
    write_bytes(folder + "/config.json", fmt::format(R"({{"model": "{}", "site": "res", "layer": 2}})", model));
    const CommandResult r = run_command({"eval", "--model", "demo", "--sae", folder, "--no-losses", "--contexts", "1",
                                         "--force", "--json", dir / "e.json"});
    EXPECT_EQ(r.status, 0) << r.err;
    EXPECT_EQ(r.err.find("was trained on google/gemma-3-1b-pt; it is evaluated on demo") != std::string::npos, said)
        << r.err;
    EXPECT_EQ(read_json(dir / "e.json").at("saes").at(0).at("site"), "res");
  }
}

// More than four SAEs: one a row, in the order of a Pareto front.
TEST(Eval, TheTableOfASuite) {
  Evaluation e{
      .contexts = 40, .context = 256, .loss_contexts = 8, .predicted = 2040, .lm_loss = {2.5, 0.01}, .saes = {}};
  std::vector<EvaluationTarget> targets;
  const auto add = [&](Site site, int64_t layer, int64_t latents, double l0, double asked, double fvu) {
    targets.push_back({.name = fmt::format("{}.{}/{}/{}", name(site), layer, latents, l0),
                       .site = site,
                       .layer = layer,
                       .latents = latents,
                       .l0 = asked});
    Evaluation::Sae sae;
    sae.metrics.tokens = 9999;
    sae.metrics.l0 = {l0, 0.12}, sae.metrics.fvu = {fvu, 0.0007};
    sae.metrics.fired.assign(static_cast<size_t>(latents), 1);
    sae.metrics.fired[0] = 0;
    sae.loss.delta = {0.125, 0.003}, sae.loss.recovered_zero = {0.97, 0.001};
    e.saes.push_back(sae);
  };
  add(Site::kRes, 3, 64, 31, 32, 0.11);
  add(Site::kRes, 3, 64, 8.25, 8, 0.31);
  add(Site::kAtt, 3, 64, 40, 0, 0.2);
  add(Site::kRes, 3, 32, 50, 0, 0.4);
  const std::string columns = evaluation_table(e, targets);
  EXPECT_NE(columns.find("norm ratio"), std::string::npos) << columns;
  EXPECT_NE(columns.find("res.3/64/8.25"), std::string::npos) << columns;
  add(Site::kRes, 0, 128, 60, 64, 0.5);
  EXPECT_EQ(evaluation_table(e, targets),
            R"(LM loss 2.500 ± 0.010 nats per token (perplexity 12.18), 2040 tokens in 8 contexts of 256
9999 tokens without BOS, EOS and padding in 40 contexts; ± standard error over contexts

               asked L0            L0                FVU       delta loss        recovered    dead     dominated in
res.0/128/60         64  60.00 ± 0.12  0.50000 ± 0.00070  0.1250 ± 0.0030  0.9700 ± 0.0010  0.78 %
att.3/64/40           -  40.00 ± 0.12  0.20000 ± 0.00070  0.1250 ± 0.0030  0.9700 ± 0.0010  1.56 %
res.3/32/50           -  50.00 ± 0.12  0.40000 ± 0.00070  0.1250 ± 0.0030  0.9700 ± 0.0010  3.12 %  FVU, delta loss
res.3/64/8.25         8   8.25 ± 0.12  0.31000 ± 0.00070  0.1250 ± 0.0030  0.9700 ± 0.0010  1.56 %
res.3/64/31          32  31.00 ± 0.12  0.11000 ± 0.00070  0.1250 ± 0.0030  0.9700 ± 0.0010  1.56 %       delta loss

L0: mean count of f > 0
FVU: sum |x_hat - x|^2 / sum |x - mean x|^2
delta loss: L_spliced - L_clean
recovered: (L_zero - L_spliced) / (L_zero - L_clean)
dead: latents that never fired here
dominated in: another SAE of this place has no more L0 and no more of it, and less of one
)");
  // By place, by layer; and by position, the mean of all.
  for (Evaluation::Sae& sae : e.saes)
    sae.metrics.by_position = {{1, 1, 40, {2, 0}, {0.5, 0}}, {2, 3, 80, sae.metrics.l0, sae.metrics.fvu}};
  EXPECT_EQ(evaluation_summaries(e, targets), R"(
position  tokens  mean L0  mean FVU
1             40        2       0.5
2-3           80    37.85     0.304

place  SAEs  mean L0  mean FVU  mean delta loss  mean recovered
res.0     1       60       0.5            0.125            0.97
att.3     1       40       0.2            0.125            0.97
res.3     3    29.75   0.27333            0.125            0.97
)");
  const auto j = summaries_to_json(e, targets);
  EXPECT_EQ(j["by_layer"].size(), 3u);
  EXPECT_EQ(j["by_layer"][2]["saes"], 3);
  EXPECT_EQ(j["by_layer"][2]["layer"], 3);
  std::vector<bool> fvu, delta;
  for (const auto& sae : j["pareto"])
    fvu.push_back(sae["dominated_in_fvu"]), delta.push_back(sae["dominated_in_delta_loss"]);
  EXPECT_EQ(fvu, (std::vector<bool>{false, false, false, true, false}));
  EXPECT_EQ(delta, (std::vector<bool>{true, false, false, true, false}));
}

// Sums over the positions are those of all: L0 exactly, the FVU but for the mean that it is about. Positions without a
// counted token (BOS) have no line.
TEST(Eval, ByPosition) {
  const TempFolder dir;
  const CommandResult r = run_eval({"--sae", kGolden + "params.npz", "--layer", "3", "--site", "res", "--contexts", "8",
                                    "--no-losses", "--json", dir / "e.json"});
  ASSERT_EQ(r.status, 0) << r.err;
  const auto sae = read_json(dir / "e.json").at("saes").at(0);
  const auto& positions = sae.at("by_position");
  ASSERT_EQ(positions.size(), 8u);  // 1, 2-3, ..., 128-255
  EXPECT_EQ(positions[0].at("from"), 1);
  EXPECT_EQ(positions[0].at("tokens"), 8);
  EXPECT_EQ(positions[7].at("from"), 128);
  EXPECT_EQ(positions[7].at("to"), 255);
  double tokens = 0, l0 = 0, fvu_low = 1, fvu_high = 0;
  for (const auto& p : positions) {
    const double n = p.at("tokens");
    tokens += n, l0 += n * value(p.at("l0"));
    fvu_low = std::min(fvu_low, value(p.at("fvu"))), fvu_high = std::max(fvu_high, value(p.at("fvu")));
  }
  EXPECT_EQ(tokens, sae.at("tokens").get<double>());
  EXPECT_NEAR(l0 / tokens, value(sae.at("l0")), 1e-9);
  EXPECT_LT(fvu_low, value(sae.at("fvu")));
  EXPECT_GT(fvu_high, value(sae.at("fvu")));
  EXPECT_NE(r.out.find("128-255"), std::string::npos) << r.out;
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
