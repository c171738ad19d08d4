#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "sae/inference.h"
#include "sae/sae_trainer.h"
#include "tests/paths.h"

namespace gsae {
namespace {

// What autograd in float64 reached in 100 steps of the recipe (tests/data/make_sae.py), against the code that trains.
// f32: within 1e-4 of each tensor's largest magnitude, the project's tolerance for these goldens.
constexpr double kTolerance = 1e-4;

struct Golden {
  std::string folder;
  nlohmann::json config;
  SafetensorsFile activations, init, expected;

  explicit Golden(const std::string& name)
      : folder(test::test_data("sae/" + name)),
        config(nlohmann::json::parse(std::ifstream(folder + "/config.json"))),
        activations(folder + "/activations.safetensors"),
        init(folder + "/init.safetensors"),
        expected(folder + "/expected.safetensors") {}

  int64_t d() const { return config["d"]; }
  int64_t latents() const { return config["F"]; }

  Recipe recipe() const {
    Recipe r;
    r.batch = config["batch"];
    r.steps = config["steps"];
    r.lr = config["lr"];
    r.lr_warmup = config["lr_warmup_steps"];
    r.lambda_warmup = config["lambda_warmup_steps"];
    r.lambda = config["lambda"];
    r.bandwidth = config["bandwidth"];
    r.beta2 = config["beta2"];
    r.epsilon = config["adam_epsilon"];
    if (config["penalty"] == "quadratic") {
      r.penalty = Recipe::Penalty::kQuadratic;
      r.target_l0 = config["target_l0"];
    }
    return r;
  }

  void load(const SaeParameters& p) const {
    to_f32(p.W_enc.data<float>(), init.get("W_enc"));
    to_f32(p.W_dec.data<float>(), init.get("W_dec"));
    to_f32(p.b_enc.data<float>(), init.get("b_enc"));
    to_f32(p.b_dec.data<float>(), init.get("b_dec"));
    to_f32(p.threshold.data<float>(), init.get("threshold"));
  }
};

// A trainer on memory of its own. Tiles that do not divide the batch: the last one is ragged.
struct Fixture {
  Context ctx{Device::kCpu};
  Golden golden;
  Recipe recipe;
  Buffer memory, given_memory;
  std::unique_ptr<SaeTrainer> trainer;
  std::vector<float> rows;

  Fixture(const std::string& name, int64_t tile) : golden(name), recipe(golden.recipe()) {
    Arena plan;
    SaeTrainer(plan, recipe, tile, golden.d(), golden.latents(), DType::kF32);
    memory = Buffer(Device::kCpu, plan.used());
    Arena arena(memory);
    trainer = std::make_unique<SaeTrainer>(arena, recipe, tile, golden.d(), golden.latents(), DType::kF32);
    Arena given_plan;
    SaeParameters(given_plan, golden.d(), golden.latents());
    given_memory = Buffer(Device::kCpu, given_plan.used());
    Arena given_arena(given_memory);
    const SaeParameters given(given_arena, golden.d(), golden.latents());
    golden.load(given);
    trainer->start(ctx, given);
    rows = to_f32(golden.activations.get("activations"));
  }

  void step(int64_t s) {
    const double C = golden.config["input_scale"];
    float* x = trainer->workspace().x.data<float>();
    const int64_t n = recipe.batch * golden.d();
    for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(rows[s * n + i] / C);
    trainer->step(ctx, s);
  }

  void expect(const Tensor& got, const std::string& name) {
    const std::vector<float> want = to_f32(golden.expected.get(name));
    ASSERT_EQ(static_cast<size_t>(got.size()), want.size()) << name;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::fabs(double(want[i])));
      worst = std::max(worst, std::fabs(double(got.data<float>()[i]) - want[i]));
    }
    EXPECT_LE(worst, kTolerance * largest) << name << ": largest magnitude " << largest;
    EXPECT_GT(largest, 0) << name;
  }
};

class SaeGolden : public testing::TestWithParam<std::string> {};

TEST_P(SaeGolden, GradientsOfTheFirstStep) {
  Fixture f(GetParam(), 7);
  f.step(0);
  const SaeParameters& g = f.trainer->workspace().grad;
  f.expect(g.W_enc, "grad0/W_enc");
  f.expect(g.W_dec, "grad0/W_dec");
  f.expect(g.b_enc, "grad0/b_enc");
  f.expect(g.b_dec, "grad0/b_dec");
  f.expect(g.threshold, "grad0/threshold");
}

TEST_P(SaeGolden, HundredSteps) {
  Fixture f(GetParam(), 1000);
  const std::vector<float> loss = to_f32(f.golden.expected.get("loss")), mse = to_f32(f.golden.expected.get("mse")),
                           l0 = to_f32(f.golden.expected.get("l0"));
  for (int64_t s = 0; s < f.recipe.steps; ++s) {
    f.step(s);
    const StepMetrics m = f.trainer->read_metrics(f.ctx, 1);
    EXPECT_NEAR(m.loss, loss[s], kTolerance * loss[s]) << "step " << s;
    EXPECT_NEAR(m.mse, mse[s], kTolerance * mse[s]) << "step " << s;
    EXPECT_NEAR(m.l0, l0[s], kTolerance * l0[s]) << "step " << s;
  }
  const SaeParameters& p = f.trainer->state().p;
  f.expect(p.W_enc, "trained/W_enc");
  f.expect(p.W_dec, "trained/W_dec");
  f.expect(p.b_enc, "trained/b_enc");
  f.expect(p.b_dec, "trained/b_dec");
  f.expect(p.threshold, "trained/threshold");

  // folded into the memory that held the start
  Arena arena(f.given_memory);
  const SaeParameters folded(arena, f.golden.d(), f.golden.latents());
  fold(f.ctx, folded, p, f.golden.config["input_scale"]);
  f.expect(folded.W_enc, "folded/W_enc");
  f.expect(folded.W_dec, "folded/W_dec");
  f.expect(folded.b_enc, "folded/b_enc");
  f.expect(folded.b_dec, "folded/b_dec");
  f.expect(folded.threshold, "folded/threshold");
}

// With the golden's own folded parameters: after 100 steps in f32, ours differ by up to 1e-4, and a z as near to its
// threshold as that would be compared the other way.
TEST_P(SaeGolden, EncodeAndDecode) {
  Fixture f(GetParam(), 7);
  Arena arena(f.given_memory);
  const SaeParameters p(arena, f.golden.d(), f.golden.latents());
  to_f32(p.W_enc.data<float>(), f.golden.expected.get("folded/W_enc"));
  to_f32(p.W_dec.data<float>(), f.golden.expected.get("folded/W_dec"));
  to_f32(p.b_enc.data<float>(), f.golden.expected.get("folded/b_enc"));
  to_f32(p.b_dec.data<float>(), f.golden.expected.get("folded/b_dec"));
  to_f32(p.threshold.data<float>(), f.golden.expected.get("folded/threshold"));
  const int64_t n = static_cast<int64_t>(f.rows.size()) / f.golden.d();
  std::vector<float> latents(n * f.golden.latents()), x_hat(n * f.golden.d());
  const Tensor fs = view(latents.data(), {n, f.golden.latents()}), xs = view(x_hat.data(), {n, f.golden.d()});
  encode(f.ctx, fs, view(f.rows.data(), {n, f.golden.d()}), p);
  decode(f.ctx, xs, fs, p);
  f.expect(fs, "eval/f");
  f.expect(xs, "eval/x_hat");
}

INSTANTIATE_TEST_SUITE_P(Cases, SaeGolden, testing::Values("gemma_scope", "quadratic_l0"),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace gsae
