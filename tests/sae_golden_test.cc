#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "sae/inference.h"
#include "tests/paths.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

// What autograd in float64 reached in 100 steps of the recipe (tests/data/make_sae.py), against the code that trains.
// f32: within 1e-4 of each tensor's largest magnitude, the project's tolerance for these goldens.
constexpr double kTolerance = 1e-4;

struct Golden {
  std::string folder;
  nlohmann::json config;
  SafetensorsFile activations, init, expected;

  explicit Golden(const std::string& name)
      : folder(test_data("sae/" + name)),
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

  // Parameters of a file, in the host's memory that p lies in.
  static void load(const SaeParameters& p, const SafetensorsFile& file, const std::string& prefix) {
    to_f32(p.W_enc.data<float>(), file.get(prefix + "W_enc"));
    to_f32(p.W_dec.data<float>(), file.get(prefix + "W_dec"));
    to_f32(p.b_enc.data<float>(), file.get(prefix + "b_enc"));
    to_f32(p.b_dec.data<float>(), file.get(prefix + "b_dec"));
    to_f32(p.threshold.data<float>(), file.get(prefix + "threshold"));
  }
};

// A trainer that starts where the golden does. Tiles that do not divide the batch: the last one is ragged.
struct Fixture : TrainerFixture {
  Golden golden;
  Buffer host_memory;
  SaeParameters host;  // the start, and whatever is folded
  std::vector<float> rows;

  Fixture(const Context& on, const std::string& name, int64_t tile) : Fixture(on, Golden(name), tile) {}
  Fixture(const Context& on, Golden given, int64_t tile)
      : TrainerFixture(on, given.recipe(), tile, given.d(), given.latents(), DType::kF32), golden(std::move(given)) {
    Arena plan;
    SaeParameters(plan, golden.d(), golden.latents());
    host_memory = Buffer(Device::kCpu, plan.used());
    Arena arena(host_memory);
    host = SaeParameters(arena, golden.d(), golden.latents());
    Golden::load(host, golden.init, "");
    trainer->start(ctx, host);
    rows = to_f32(golden.activations.get("activations"));
  }

  void step(int64_t s) {
    const double C = golden.config["input_scale"];
    const int64_t n = trainer->recipe().batch * golden.d();
    std::vector<float> x(rows.begin() + s * n, rows.begin() + (s + 1) * n);
    for (float& v : x) v = static_cast<float>(v / C);
    feed(x);
    trainer->step(ctx, s);
  }

  void expect(const Tensor& tensor, const std::string& name) { expect(values(ctx, tensor), name); }
  void expect(const std::vector<float>& got, const std::string& name) {
    const std::vector<float> want = to_f32(golden.expected.get(name));
    ASSERT_EQ(got.size(), want.size()) << name;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::fabs(double(want[i])));
      worst = std::max(worst, std::fabs(double(got[i]) - want[i]));
    }
    EXPECT_LE(worst, kTolerance * largest) << name << ": largest magnitude " << largest;
    EXPECT_GT(largest, 0) << name;
  }
};

// Each golden on each device.
struct SaeGolden : testing::TestWithParam<std::tuple<const char*, Device>> {
  void SetUp() override { require(device()); }
  std::string golden() const { return std::get<0>(GetParam()); }
  Device device() const { return std::get<1>(GetParam()); }
};

TEST_P(SaeGolden, GradientsOfTheFirstStep) {
  Fixture f(Context(device()), golden(), 7);
  f.step(0);
  const StepWorkspace& w = f.trainer->workspace();
  const HostParameters g(f.ctx, w.dense.grad, w.grad_b_dec);
  f.expect(g.W_enc, "grad0/W_enc");
  f.expect(g.W_dec, "grad0/W_dec");
  f.expect(g.b_enc, "grad0/b_enc");
  f.expect(g.b_dec, "grad0/b_dec");
  f.expect(g.threshold, "grad0/threshold");
}

// On a GPU all but the first two steps are replays of a graph.
TEST_P(SaeGolden, HundredSteps) {
  Fixture f(Context(device()), golden(), 1000);
  const std::vector<float> loss = to_f32(f.golden.expected.get("loss")), mse = to_f32(f.golden.expected.get("mse")),
                           l0 = to_f32(f.golden.expected.get("l0"));
  for (int64_t s = 0; s < f.trainer->recipe().steps; ++s) {
    f.step(s);
    const StepMetrics m = f.trainer->read_metrics(f.ctx, 1);
    EXPECT_NEAR(m.loss, loss[s], kTolerance * loss[s]) << "step " << s;
    EXPECT_NEAR(m.mse, mse[s], kTolerance * mse[s]) << "step " << s;
    EXPECT_NEAR(m.l0, l0[s], kTolerance * l0[s]) << "step " << s;
  }
  const HostParameters p(f.ctx, f.trainer->state());
  f.expect(p.W_enc, "trained/W_enc");
  f.expect(p.W_dec, "trained/W_dec");
  f.expect(p.b_enc, "trained/b_enc");
  f.expect(p.b_dec, "trained/b_dec");
  f.expect(p.threshold, "trained/threshold");

  fold(f.ctx, f.host, f.trainer->state(), f.golden.config["input_scale"]);
  f.expect(f.host.W_enc, "folded/W_enc");
  f.expect(f.host.W_dec, "folded/W_dec");
  f.expect(f.host.b_enc, "folded/b_enc");
  f.expect(f.host.b_dec, "folded/b_dec");
  f.expect(f.host.threshold, "folded/threshold");
}

// Whether ops are launched one by one or replayed from a graph, and the second time as the first: the same bits.
TEST_P(SaeGolden, GraphsAreTheSameBits) {
  const auto train = [&](bool graphs) {
    Context ctx(device());
    ctx.graphs = graphs;
    Fixture f(ctx, golden(), 13);
    std::vector<double> metrics;
    for (int64_t s = 0; s < 6; ++s) {
      f.step(s);
      const StepMetrics m = f.trainer->read_metrics(f.ctx, 1);
      metrics.insert(metrics.end(), {m.loss, m.mse, m.penalty, m.l0, m.fvu, double(m.dead), m.threshold_mean});
    }
    const SaeState& s = f.trainer->state();
    return std::tuple(metrics, HostParameters(f.ctx, s), HostParameters(f.ctx, s.latents.v, s.b_dec_moment));
  };
  const auto replayed = train(true);
  EXPECT_TRUE(train(false) == replayed);
  EXPECT_TRUE(train(true) == replayed);
}

// With the golden's own folded parameters: after 100 steps in f32, ours differ by up to 1e-4, and a z as near to its
// threshold as that would be compared the other way.
TEST_P(SaeGolden, EncodeAndDecode) {
  Fixture f(Context(device()), golden(), 7);
  Golden::load(f.host, f.golden.expected, "folded/");
  Buffer memory;
  const SaeParameters p = on_device(f.ctx, f.host, memory);
  const int64_t n = static_cast<int64_t>(f.rows.size()) / f.golden.d();
  const Guarded x(f.ctx, DType::kF32, {n, f.golden.d()}, f.rows), latents(f.ctx, DType::kF32, {n, f.golden.latents()}),
      x_hat(f.ctx, DType::kF32, {n, f.golden.d()});
  encode(f.ctx, latents, x, p);
  decode(f.ctx, x_hat, latents, p);
  f.expect(latents, "eval/f");
  f.expect(x_hat, "eval/x_hat");
}

INSTANTIATE_TEST_SUITE_P(Cases, SaeGolden,
                         testing::Combine(testing::Values("gemma_scope", "quadratic_l0"), testing::ValuesIn(devices())),
                         [](const auto& p) {
                           return std::string(std::get<0>(p.param)) + "_" + name(std::get<1>(p.param));
                         });

}  // namespace
}  // namespace gsae::test
