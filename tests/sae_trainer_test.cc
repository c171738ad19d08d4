#include "sae/sae_trainer.h"

#include <gtest/gtest.h>

#include "kernels/sparsity.h"
#include "sae/inference.h"
#include "sae/start.h"
#include "tests/threads.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

constexpr int64_t kWidth = 32, kLatents = 128, kBatch = 256;

const Dictionary& dictionary() {
  static const Dictionary d(kWidth, 64, 4, 5);
  return d;
}

// The rows of a training step: 600 batches, again and again.
std::vector<float> batch(int64_t step) {
  static const std::vector<float> pool = dictionary().rows(0, 600 * kBatch);
  const auto first = pool.begin() + step % 600 * kBatch * kWidth;
  return {first, first + kBatch * kWidth};
}

// Settings that learn the dictionary within a second; independent of the presets.
Recipe quick(int64_t steps) {
  Recipe r;
  r.batch = kBatch;
  r.steps = steps;
  r.lr = 3e-3;
  r.lr_warmup = 0;
  r.lr_decay = 0.5;
  r.beta2 = 0.99;
  r.lambda_warmup = 0;
  r.bandwidth = 0.02;
  r.start = Recipe::Start::kData;
  r.start_l0 = 6;
  return r;
}

// The parameters stay as they are (but for the renormalisation of W_dec, which rounds).
Recipe frozen() {
  Recipe r = quick(100);
  r.lr = 0;
  r.lambda = 0.02;
  return r;
}

struct Training : TrainerFixture {
  Training(const Context& on, const Recipe& r, DType precision, int64_t tile = 100, int64_t latents = kLatents)
      : TrainerFixture(on, r, tile, kWidth, latents, precision) {
    feed(batch(0));
    trainer->start(ctx);
  }
  void train(int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) {
      feed(batch(s));
      trainer->step(ctx, s);
    }
  }
  const LatentTensors& p() { return trainer->state().p(); }
  HostParameters parameters() { return {ctx, trainer->state()}; }
};

struct SaeTrainerTest : OnDevice {};
ON_DEVICES(SaeTrainerTest);

// Within `tolerance` of the largest magnitude.
void expect_near(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  double largest = 0;
  for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
  expect_close(got, want, 0, tolerance * largest);
}

constexpr int64_t kHeldOut = int64_t{1} << 41;  // the first row that no training gets to

// Three batches, tiles that do not divide them, both penalties: the means over all rows since the last reading, from
// the formula in doubles. f32 rounds relative to terms of the size of |x|^2 = 1.
TEST_P(SaeTrainerTest, MetricsAreThoseOfTheFormula) {
  for (const auto penalty : {Recipe::Penalty::kL0, Recipe::Penalty::kQuadratic}) {
    Recipe r = frozen();
    r.penalty = penalty;
    r.target_l0 = 8;
    Training t(ctx, r, DType::kF32);
    t.train(0, 1);
    t.trainer->read_metrics(t.ctx, 1);  // whatever was before does not count
    t.train(1, 4);
    const StepMetrics m = t.trainer->read_metrics(t.ctx, 1);

    const auto x = dictionary().rows(kBatch, 3 * kBatch);
    const Reference want(x, t.parameters());
    ASSERT_GT(want.nearest, 1e-7) << "another seed, please: f32 may decide this one otherwise";
    std::vector<double> cost;
    for (const double l0 : want.l0)
      cost.push_back(penalty == Recipe::Penalty::kL0 ? r.lambda * l0 : r.lambda * (2 / 8.0) * (l0 - 8) * (l0 - 8));
    EXPECT_EQ(m.rows, 3 * kBatch);
    EXPECT_NEAR(m.mse, mean(want.error), 2e-6);
    EXPECT_DOUBLE_EQ(m.l0, mean(want.l0));
    EXPECT_NEAR(m.penalty, mean(cost), 1e-6 * mean(cost));
    EXPECT_EQ(m.loss, m.mse + m.penalty);
    EXPECT_NEAR(m.fvu, mean(want.error) / variance(x, kWidth), 1e-5);
    EXPECT_GT(m.fvu, 0.05);
    EXPECT_LT(m.fvu, 0.95);
    EXPECT_EQ(m.lr, 0);
    EXPECT_FLOAT_EQ(float(m.lambda), float(r.lambda));
    const auto fired = download<int64_t>(ctx, t.trainer->state().fired_total);
    for (int64_t i = 0; i < kLatents; ++i) EXPECT_GE(fired[i], want.fired[i]);  // all four steps
  }
}

TEST_P(SaeTrainerTest, Thresholds) {
  Training t(ctx, frozen(), DType::kF32);
  std::vector<float> theta(kLatents);
  double sum = 0;
  for (int64_t i = 0; i < kLatents; ++i) theta[i] = 0.5f + 0.25f * float(i % 4), sum += theta[i];
  upload(ctx, t.p().threshold, theta);
  t.train(0, 1);
  const StepMetrics m = t.trainer->read_metrics(t.ctx, 1);
  EXPECT_NEAR(m.threshold_mean, sum / kLatents, 1e-9);
  EXPECT_EQ(m.threshold_min, 0.5);
  EXPECT_EQ(m.threshold_max, 1.25);
}

// One latent cannot fire, another not in the batches after the first: each is dead once it has been silent for the
// window, to the row, and alive again when it fires.
TEST_P(SaeTrainerTest, DeadLatents) {
  Training t(ctx, frozen(), DType::kF32);
  std::vector<float> theta(kLatents);  // everything fires now and then
  theta[3] = 1e9f;
  upload(ctx, t.p().threshold, theta);
  auto dead_after_a_step = [&, step = int64_t{0}](int64_t window) mutable {
    t.train(step, step + 1), ++step;
    return t.trainer->read_metrics(t.ctx, window).dead;
  };
  EXPECT_EQ(dead_after_a_step(kBatch + 1), 0);
  EXPECT_EQ(dead_after_a_step(2 * kBatch + 1), 0);
  EXPECT_EQ(dead_after_a_step(3 * kBatch), 1);
  theta[7] = 1e9f;
  upload(ctx, t.p().threshold, theta);
  EXPECT_EQ(dead_after_a_step(kBatch), 2);
  EXPECT_EQ(dead_after_a_step(2 * kBatch + 1), 1);
  EXPECT_EQ(dead_after_a_step(3 * kBatch), 2);
  theta[7] = 0;
  upload(ctx, t.p().threshold, theta);
  EXPECT_EQ(dead_after_a_step(kBatch), 1);
}

// Each reading is of steps that nobody has read yet; there is none without a step.
TEST_P(SaeTrainerTest, MetricsAreTakenOnce) {
  Training t(ctx, frozen(), DType::kF32);
  EXPECT_FALSE(t.trainer->request_metrics(t.ctx, 1));
  EXPECT_FALSE(t.trainer->metrics_ready());
  EXPECT_THROW(t.trainer->take_metrics(), Error);
  t.train(0, 2);
  EXPECT_TRUE(t.trainer->request_metrics(t.ctx, 1));
  EXPECT_FALSE(t.trainer->request_metrics(t.ctx, 1));
  t.train(2, 3);  // goes on meanwhile
  EXPECT_EQ(t.trainer->take_metrics().rows, 2 * kBatch);
  EXPECT_FALSE(t.trainer->metrics_ready());
  EXPECT_THROW(t.trainer->take_metrics(), Error);
  EXPECT_EQ(t.trainer->read_metrics(t.ctx, 1).rows, kBatch);
}

// lambda in a step is that of its place in the warm-up; theta is moved by it.
TEST_P(SaeTrainerTest, LambdaWarmsUp) {
  Recipe r = frozen();
  r.lambda_warmup = 4;
  Training t(ctx, r, DType::kF32);
  for (int64_t s = 0; s < 6; ++s) {
    t.train(s, s + 1);
    const StepMetrics m = t.trainer->read_metrics(t.ctx, 1);
    EXPECT_FLOAT_EQ(float(m.lambda), float(0.02 * std::min(s / 4.0, 1.0)));
    EXPECT_NEAR(m.penalty, m.lambda * m.l0, 1e-6);
  }
}

// The target of each step is in its metrics, and it is what the controller compares with; what the next one is, it
// knows. Without an integral, lambda is where it began, for a target of 2, over the rise since then, times the L0 over
// the next target.
TEST_P(SaeTrainerTest, TheTargetRises) {
  Recipe r = frozen();
  r.controller = true, r.lambda = 0;
  r.target_l0 = 8, r.first_l0 = 2, r.l0_warmup = 2;
  r.integral_gain = r.threshold_gain = 0, r.proportional_gain = 1;
  Training t(ctx, r, DType::kF32);
  const std::vector<double> targets{2, 4, 8, 8, 8};
  double first = 0;
  for (size_t s = 0; s < 4; ++s) {
    t.train(int64_t(s), int64_t(s) + 1);
    const StepMetrics m = t.trainer->read_metrics(t.ctx, 1);
    EXPECT_EQ(m.target_l0, targets[s]);
    if (s == 0) first = kFirstLambda * m.mse / 2;
    const double steady = first * targets[0] / targets[s + 1], rise = targets[s + 1] / targets[s];
    const double off = std::exp(std::clamp(std::log(m.l0 / targets[s]), -1.0, 1.0));
    EXPECT_NEAR(m.lambda, steady * off / rise, 1e-5 * m.lambda);
  }
}

// Whatever was counted before a start is forgotten.
TEST_P(SaeTrainerTest, StartsAgain) {
  Training a(ctx, quick(10), DType::kF32), b(ctx, quick(10), DType::kF32);
  a.train(0, 3);
  a.feed(batch(0));
  a.trainer->start(a.ctx);
  a.train(0, 2), b.train(0, 2);
  const StepMetrics first = a.trainer->read_metrics(a.ctx, 1), second = b.trainer->read_metrics(b.ctx, 1);
  EXPECT_EQ(first.rows, second.rows);
  EXPECT_EQ(first.mse, second.mse);
  EXPECT_EQ(first.l0, second.l0);
  EXPECT_TRUE(a.parameters() == b.parameters());
}

// folded(x) = trained(x / C) * C. Both in doubles, from f32 parameters that were rounded once more: relative to the
// norm of x, a few units of f32 per sum; rows where a z lies that near to its threshold are few and left out.
TEST_P(SaeTrainerTest, FoldedItTakesRawActivations) {
  Recipe r = quick(30);
  r.lambda = 0.005;
  Training t(ctx, r, DType::kF32);
  t.train(0, emulated(ctx) ? 5 : 30);
  auto b_enc = values(ctx, t.p().b_enc);
  for (int64_t i = 0; i < kLatents; ++i) b_enc[i] += 0.01f * float(i % 7);  // far from zero
  upload(ctx, t.p().b_enc, b_enc);
  const HostParameters p = t.parameters();
  const double C = 37.5;
  Arena plan;
  SaeParameters(plan, kWidth, kLatents);
  const Buffer memory(Device::kCpu, plan.used());
  Arena arena(memory);
  const SaeParameters folded(arena, kWidth, kLatents);
  fold(t.ctx, folded, t.trainer->state(), C);
  EXPECT_EQ(values(ctx, folded.W_enc), p.W_enc);
  EXPECT_EQ(values(ctx, folded.W_dec), p.W_dec);

  const int64_t n = 200;
  const auto x = dictionary().rows(kHeldOut, n);
  std::vector<float> raw(x.size());
  for (size_t i = 0; i < x.size(); ++i) raw[i] = static_cast<float>(C * x[i]);
  Guarded rows(ctx, DType::kF32, {n, kWidth}, raw), of_latents(ctx, DType::kF32, {n, kLatents}),
      reconstructed(ctx, DType::kF32, {n, kWidth});
  Buffer device_memory;
  const SaeParameters raw_sae = on_device(ctx, folded, device_memory);
  encode(ctx, of_latents, rows, raw_sae);
  decode(ctx, reconstructed, of_latents, raw_sae);
  const auto f = of_latents.read(), x_hat = reconstructed.read();
  int64_t undecided = 0, active = 0;
  for (int64_t row = 0; row < n; ++row) {
    const Reference want({x.begin() + row * kWidth, x.begin() + (row + 1) * kWidth}, p);
    if (want.nearest < 1e-6) {
      ++undecided;
      continue;
    }
    int64_t count = 0;
    for (int64_t i = 0; i < kLatents; ++i) count += f[row * kLatents + i] > 0;
    EXPECT_EQ(count, want.l0[0]);
    active += count;
    for (int64_t c = 0; c < kWidth; ++c) EXPECT_NEAR(x_hat[row * kWidth + c], C * want.x_hat[c], 3e-6 * C);
  }
  EXPECT_LT(undecided, n / 20);
  EXPECT_GT(active, n);
}

// What the trained SAE makes of rows that it has not seen: FVU and L0. The mean L0 of fewer rows would be off by
// percents, as the number of directions in a row varies (by 1.9 around 4).
struct Score {
  double fvu, l0;
};
Score score(Training& t) {
  static const auto x = dictionary().rows(kHeldOut, 20000);
  const Reference r(x, t.parameters());
  return {mean(r.error) / variance(x, kWidth), mean(r.l0)};
}

// The emulation compares with the CPU, step by step, instead of learning for hundreds of them.
TEST_P(SaeTrainerTest, TrainsAsTheCpuDoes) {
  for (const DType precision : {DType::kF32, DType::kBF16})
    for (const bool controller : {false, true}) {
      Recipe r = quick(6);
      r.lambda = controller ? 0 : 0.004;  // the controller finds its own
      r.controller = controller;
      r.target_l0 = 5;
      Training here(ctx, r, precision), cpu(Context(Device::kCpu), r, precision);
      // f32: as far from each other as from the goldens at most. bf16: an operand that lies on the edge between two
      // roundings may fall to either side, each a change by 2^-8 of one in thousands that a loss is a mean of.
      const double tolerance = precision == DType::kF32 ? 1e-4 : 1e-3;
      for (int64_t s = 0; s < r.steps; ++s) {
        here.train(s, s + 1), cpu.train(s, s + 1);
        const StepMetrics got = here.trainer->read_metrics(here.ctx, 1), want = cpu.trainer->read_metrics(cpu.ctx, 1);
        EXPECT_NEAR(got.loss, want.loss, tolerance * want.loss) << "step " << s;
        EXPECT_NEAR(got.mse, want.mse, tolerance * want.mse) << "step " << s;
        EXPECT_NEAR(got.l0, want.l0, tolerance * want.l0) << "step " << s;
        EXPECT_NEAR(got.fvu, want.fvu, tolerance * want.fvu) << "step " << s;
        EXPECT_NEAR(got.lambda, want.lambda, tolerance * want.lambda) << "step " << s;
      }
      if (precision != DType::kF32) continue;
      const HostParameters got = here.parameters(), want = cpu.parameters();
      expect_near(got.W_enc, want.W_enc, tolerance);
      expect_near(got.W_dec, want.W_dec, tolerance);
      expect_near(got.b_enc, want.b_enc, tolerance);
      expect_near(got.b_dec, want.b_dec, tolerance);
      expect_near(got.threshold, want.threshold, tolerance);
    }
}

TEST_P(SaeTrainerTest, Bf16LearnsAsWellAsF32) {
  if (emulated(ctx)) GTEST_SKIP() << "800 steps; TrainsAsTheCpuDoes is for the emulation";
  Recipe r = quick(400);
  r.lambda = 0.004;
  Training wide(ctx, r, DType::kF32), narrow(ctx, r, DType::kBF16);
  const Score before = score(wide);
  wide.train(0, r.steps);
  narrow.train(0, r.steps);
  const Score f32 = score(wide), bf16 = score(narrow);
  EXPECT_LT(f32.fvu, 0.25 * before.fvu);
  EXPECT_NEAR(bf16.fvu, f32.fvu, 0.05 * f32.fvu);
  EXPECT_NEAR(bf16.l0, f32.l0, 0.03 * f32.l0);
}

// What --l0 promises of the default preset: within 5 % on rows that were not trained on, for targets on both sides of
// the 4 true latents, from its own sparse start and from a dense one.
TEST_P(SaeTrainerTest, TheControllerReachesItsTarget) {
  if (emulated(ctx)) GTEST_SKIP() << "3600 steps; TrainsAsTheCpuDoes is for the emulation";
  for (const double target : {3.0, 5.0, 10.0})
    for (const bool dense : {false, true}) {
      Recipe r = preset_recipe("default", 600, kBatch, kWidth);
      r.controller = true;
      r.target_l0 = target;
      if (dense) r.start_l0 = 20;
      Training t(ctx, r, DType::kF32);
      t.train(0, r.steps);
      const Score s = score(t);
      EXPECT_NEAR(s.l0, target, 0.05 * target) << (dense ? "from 20" : "from the preset's start");
      EXPECT_LT(s.fvu, 0.25);
    }
}

// Shapes of which oneDNN might split the sums over threads, and tiles that do not divide the batch.
TEST(SaeTrainer, SameBitsWithAnyNumberOfThreads) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    std::vector<std::vector<float>> first;
    StepMetrics first_metrics;
    for (const int count : {1, 2}) {
      const Threads threads(count);
      Recipe r = quick(6);
      r.controller = true;
      r.target_l0 = 5;
      Training t(Context(Device::kCpu), r, precision, 160, 1100);
      t.train(0, 6);
      const HostParameters p = t.parameters();
      const std::vector<std::vector<float>> now{p.W_enc, p.W_dec,     p.b_enc,
                                                p.b_dec, p.threshold, values(t.ctx, t.trainer->state().control)};
      const StepMetrics m = t.trainer->read_metrics(t.ctx, 1);
      if (count == 1) {
        first = now;
        first_metrics = m;
        continue;
      }
      EXPECT_EQ(now, first);
      EXPECT_EQ(m.loss, first_metrics.loss);
      EXPECT_EQ(m.fvu, first_metrics.fvu);
    }
  }
}

// Replayed from a graph or not: the same bits, also of tiles that do not divide the batch, and after a new start.
TEST_P(SaeTrainerTest, GraphsAreTheSameBits) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    Recipe r = quick(6);
    r.controller = true;
    r.target_l0 = 5;
    const auto train = [&](bool graphs) {
      Context on = ctx;
      on.graphs = graphs;
      Training t(on, r, precision, 160, 70);
      t.train(0, 4);
      t.feed(batch(0));
      t.trainer->start(t.ctx);
      t.train(0, 2);
      return std::pair(t.parameters(), values(t.ctx, t.trainer->state().control));
    };
    EXPECT_TRUE(train(true) == train(false));
  }
}

// A run that has gone wrong says so.
TEST_P(SaeTrainerTest, NanReachesTheLoss) {
  for (const DType precision : {DType::kF32, DType::kBF16})
    for (const bool weight : {false, true}) {
      Training t(ctx, quick(10), precision);
      auto x = batch(0);
      if (weight) {
        upload(ctx, t.p().W_enc.reshape({kWidth * kLatents}).rows(77, 78), std::vector{std::nanf("")});
        refresh_copies(t.ctx, t.trainer->state());
      } else {
        x[kBatch * kWidth / 2] = std::nanf("");
      }
      t.feed(x);
      t.trainer->step(t.ctx, 0);
      EXPECT_TRUE(std::isnan(t.trainer->read_metrics(t.ctx, 1).loss)) << weight;
    }
}

}  // namespace
}  // namespace gsae::test
