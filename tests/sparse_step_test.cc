#include "sae/sparse_step.h"

#include <gtest/gtest.h>

#include "tests/threads.h"
#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

constexpr int64_t kWidth = 32, kLatents = 150, kBatch = 256;

Recipe recipe(bool quadratic = false) {
  Recipe r;
  r.batch = kBatch;
  r.steps = 100;
  r.lr = 3e-3;
  r.lr_warmup = 0;
  r.beta2 = 0.99;
  r.lambda = 0.01;
  r.lambda_warmup = 0;
  r.bandwidth = 0.05;  // so that many an entry is in the window alone
  r.decoder_rate = 3, r.threshold_rate = 0.5;
  r.start = Recipe::Start::kData;
  r.start_l0 = 6;
  if (quadratic) r.penalty = Recipe::Penalty::kQuadratic, r.target_l0 = 5;
  return r;
}

std::vector<float> batch(int64_t step) {
  static const Dictionary dictionary(kWidth, 64, 4, 5);
  static const std::vector<float> pool = dictionary.rows(0, 40 * kBatch);
  const auto first = pool.begin() + step % 40 * kBatch * kWidth;
  return {first, first + kBatch * kWidth};
}

StepSizes sizes(int64_t capacity, int64_t limit = 1 << 30) {
  StepSizes s = tiles_of(100, kBatch, kWidth, kLatents);
  s.select = 64;  // three tiles, the last one short
  s.capacity = capacity;
  s.limit = limit;
  return s;
}

struct Trained : TrainerFixture {
  Trained(const Context& on, const Recipe& r, const StepSizes& s, DType precision, StepKind kind)
      : TrainerFixture(on, r, s, kWidth, kLatents, precision, kind) {
    feed(batch(0));
    trainer->start(ctx);
  }
  void train(int64_t first, int64_t last) {
    for (int64_t s = first; s < last; ++s) feed(batch(s)), trainer->step(ctx, s);
  }
  StepMetrics metrics() { return trainer->read_metrics(ctx, 1); }
  HostParameters parameters() { return {ctx, trainer->state()}; }
  HostParameters moments() { return {ctx, trainer->state().latents.v, trainer->state().b_dec_moment}; }
};

struct SparseStep : OnDevice {};
ON_DEVICES(SparseStep);

constexpr int64_t kPlenty = kBatch * kLatents;

// Within `tolerance` of the largest magnitude.
void expect_near(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  double largest = 0;
  for (const float v : want) largest = std::max(largest, std::fabs(double(v)));
  EXPECT_GT(largest, 0);
  expect_close(got, want, 0, tolerance * largest);
}
void expect_near(const HostParameters& got, const HostParameters& want, double tolerance) {
  expect_near(got.W_enc, want.W_enc, tolerance);
  expect_near(got.W_dec, want.W_dec, tolerance);
  expect_near(got.b_enc, want.b_enc, tolerance);
  expect_near(got.b_dec, want.b_dec, tolerance);
  expect_near(got.threshold, want.threshold, tolerance);
}

// One step from the same parameters. Second moments are squares of gradients, so with them the gradients agree, of
// every parameter; in f32 as sums in another order do. In bf16 an operand may be rounded to the other side: 2^-8 of one
// term of a sum of many.
TEST_P(SparseStep, GradientsAreTheDenseStepsOnes) {
  for (const bool quadratic : {false, true})
    for (const DType precision : {DType::kF32, DType::kBF16}) {
      const Recipe r = recipe(quadratic);
      Trained dense(ctx, r, sizes(kPlenty), precision, StepKind::kDense),
          sparse(ctx, r, sizes(kPlenty), precision, StepKind::kSparse);
      dense.train(0, 1), sparse.train(0, 1);
      const StepMetrics a = sparse.metrics(), b = dense.metrics();
      EXPECT_EQ(a.sparse_rows, kBatch);
      EXPECT_EQ(b.sparse_rows, 0);
      EXPECT_GT(a.entries, a.l0);  // the window's
      EXPECT_NEAR(a.l0, b.l0, precision == DType::kF32 ? 1.0 / kBatch : 0.01);
      EXPECT_NEAR(a.loss, b.loss, 1e-4 * b.loss);
      EXPECT_NEAR(a.fvu, b.fvu, 1e-4 * b.fvu);
      const double tolerance = precision == DType::kF32 ? 1e-4 : 0.02;
      expect_near(sparse.moments(), dense.moments(), tolerance);
      const auto fired = download<int64_t>(sparse.ctx, sparse.trainer->state().fired_total),
                 want = download<int64_t>(dense.ctx, dense.trainer->state().fired_total);
      int64_t differing = 0;
      for (size_t i = 0; i < want.size(); ++i) differing += std::abs(fired[i] - want[i]);
      EXPECT_LE(differing, precision == DType::kF32 ? 1 : 4);
    }
}

// Steps of either kind, alternating at random, go where dense ones go: what a latent sat out is made up for.
TEST_P(SparseStep, ALongRunStaysTogether) {
  const int64_t steps = emulated(ctx) ? 8 : 60;
  Recipe r = recipe();
  r.lr = 3e-4;  // a sign-like step doubles small differences: a long run at a small rate
  Trained dense(ctx, r, sizes(kPlenty), DType::kF32, StepKind::kDense),
      sparse(ctx, r, sizes(kPlenty), DType::kF32, StepKind::kSparse);
  dense.train(0, steps), sparse.train(0, steps);
  const StepMetrics a = sparse.metrics(), b = dense.metrics();
  EXPECT_EQ(a.sparse_rows, steps * kBatch);
  EXPECT_NEAR(a.fvu, b.fvu, 1e-3 * b.fvu);
  EXPECT_NEAR(a.l0, b.l0, 1e-3 * b.l0);
  expect_near(sparse.parameters().W_dec, dense.parameters().W_dec, 5e-3);
  for (int64_t i = 0; i < kLatents; ++i) {
    double square = 0;
    for (int64_t c = 0; c < kWidth; ++c) square += std::pow(double(sparse.parameters().W_dec[i * kWidth + c]), 2);
    ASSERT_NEAR(std::sqrt(square), 1, 1e-6);
  }
}

// A batch that does not fit the lists is taken densely, to the bit, and counted as that: nothing is dropped.
TEST_P(SparseStep, OverflowIsDense) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    Trained dense(ctx, recipe(), sizes(kPlenty), precision, StepKind::kDense),
        sparse(ctx, recipe(), sizes(200), precision, StepKind::kSparse);
    dense.train(0, 3), sparse.train(0, 3);
    EXPECT_TRUE(sparse.parameters() == dense.parameters());
    EXPECT_EQ(sparse.metrics().sparse_rows, 0);
  }
}

// The kind follows the count: sparse from a sparse start, dense once there are too many entries, and sparse again when
// L0 has fallen; at the same steps in every run.
TEST_P(SparseStep, TheKindFollowsTheCount) {
  const auto kinds = [&] {
    Recipe r = recipe();
    r.lr = 0;
    Trained t(ctx, r, sizes(kPlenty, 30 * kBatch), DType::kF32, StepKind::kAuto);
    std::vector<bool> kinds;
    for (int64_t s = 0; s < 34; ++s) {
      // thresholds that let nearly everything through for a while, then hardly anything
      if (s == 4) upload(t.ctx, t.trainer->state().p().threshold, std::vector<float>(kLatents, 0.0f));
      if (s == 20) upload(t.ctx, t.trainer->state().p().threshold, std::vector<float>(kLatents, 0.4f));
      t.train(s, s + 1);
      kinds.push_back(t.metrics().sparse_rows > 0);
    }
    return kinds;
  };
  const std::vector<bool> first = kinds();
  for (int64_t s = 0; s < 5; ++s) EXPECT_TRUE(first[s]) << s;  // the one that found too many still fits
  for (int64_t s = 5; s < 24; ++s) EXPECT_FALSE(first[s]) << s;
  EXPECT_TRUE(first[24] || first[32]);  // the next review after step 20
  EXPECT_TRUE(first[33]);
  EXPECT_EQ(kinds(), first);
}

// A random start is dense until its L0 has been measured.
TEST_P(SparseStep, ARandomStartIsDense) {
  Recipe r = recipe();
  r.start = Recipe::Start::kRandom;
  r.threshold = 0.2;
  r.lr = 0;
  Trained t(ctx, r, sizes(kPlenty), DType::kF32, StepKind::kAuto);
  t.train(0, 8);
  EXPECT_EQ(t.metrics().sparse_rows, 0);
  t.train(8, 9);
  EXPECT_EQ(t.metrics().sparse_rows, kBatch);
}

// Another trainer, on memory full of NaN, that is given what the first one says it takes goes on as it, to the bit:
// stopped before, between and behind the steps in which a review is asked for and looked at.
TEST_P(SparseStep, GoesOnInAnotherTrainer) {
  Recipe r = recipe();
  r.start = Recipe::Start::kRandom;  // dense until step 8
  r.threshold = 0.2;
  r.controller = true, r.lambda = 0, r.target_l0 = 5;
  constexpr int64_t kSteps = 10;
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    Trained whole(ctx, r, sizes(kPlenty), precision, StepKind::kAuto);
    whole.train(0, kSteps);
    const StepMetrics want = whole.metrics();
    EXPECT_EQ(want.sparse_rows, (kSteps - 8) * kBatch);
    for (const int64_t stop : {1, 5, 6, 7, 8, 9}) {
      Trained first(ctx, r, sizes(kPlenty), precision, StepKind::kAuto);
      first.train(0, stop);
      TrainerFixture second(ctx, r, sizes(kPlenty), kWidth, kLatents, precision, StepKind::kAuto);
      const auto from = first.trainer->state().persistent(), to = second.trainer->state().persistent();
      for (size_t i = 0; i < from.size(); ++i) copy(second.ctx, to[i].second, from[i].second);
      second.trainer->resume(second.ctx, first.trainer->progress());
      for (int64_t s = stop; s < kSteps; ++s) second.feed(batch(s)), second.trainer->step(second.ctx, s);
      const StepMetrics got = second.trainer->read_metrics(second.ctx, 1);
      EXPECT_TRUE(HostParameters(second.ctx, second.trainer->state()) == whole.parameters()) << stop;
      EXPECT_EQ(values(second.ctx, second.trainer->state().control), values(whole.ctx, whole.trainer->state().control));
      EXPECT_EQ(got.rows, want.rows) << stop;
      EXPECT_EQ(got.sparse_rows, want.sparse_rows) << stop;
      EXPECT_EQ(got.entries, want.entries) << stop;
      EXPECT_EQ(got.loss, want.loss) << stop;
      EXPECT_EQ(got.fvu, want.fvu) << stop;
      EXPECT_EQ(got.dead, want.dead) << stop;
      const SaeState &got_state = second.trainer->state(), &want_state = whole.trainer->state();
      EXPECT_EQ(download<int64_t>(second.ctx, got_state.fired_total), download<int64_t>(ctx, want_state.fired_total));
      EXPECT_EQ(download<int64_t>(second.ctx, got_state.idle), download<int64_t>(ctx, want_state.idle));
    }
  }
}

// More latents than gradients are kept of at a time: the dense step of a wide SAE goes over them twice, to the same
// gradients.
TEST_P(SparseStep, ADenseStepInTilesOfLatents) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    StepSizes tiled = sizes(kPlenty);
    tiled.latents = 64;
    const Recipe r = recipe();
    Trained whole(ctx, r, sizes(kPlenty), precision, StepKind::kDense);
    TrainerFixture tiles(ctx, r, tiled, kWidth, kLatents, precision, StepKind::kDense);
    // the same start: that from data samples a tile
    Trained same(ctx, r, sizes(kPlenty), precision, StepKind::kDense);
    HostParameters p = same.parameters();
    SaeParameters given;
    given.W_enc = view(p.W_enc.data(), {kWidth, kLatents}), given.W_dec = view(p.W_dec.data(), {kLatents, kWidth});
    given.b_enc = view(p.b_enc.data(), {kLatents}), given.b_dec = view(p.b_dec.data(), {kWidth});
    given.threshold = view(p.threshold.data(), {kLatents});
    tiles.trainer->start(tiles.ctx, given);
    tiles.feed(batch(0));
    tiles.trainer->step(tiles.ctx, 0);
    whole.train(0, 1);
    const StepMetrics a = tiles.trainer->read_metrics(tiles.ctx, 1), b = whole.metrics();
    EXPECT_NEAR(a.loss, b.loss, 1e-4 * b.loss);
    EXPECT_NEAR(a.l0, b.l0, precision == DType::kF32 ? 1.0 / kBatch : 0.01);
    const SaeState& s = tiles.trainer->state();
    expect_near(HostParameters(tiles.ctx, s.latents.v, s.b_dec_moment), whole.moments(),
                precision == DType::kF32 ? 1e-4 : 0.02);
    EXPECT_EQ(download<int64_t>(tiles.ctx, s.fired_total).size(), size_t(kLatents));
  }
}

TEST_P(SparseStep, GraphsAreTheSameBits) {
  const auto train = [&](bool graphs) {
    Context on = ctx;
    on.graphs = graphs;
    Recipe r = recipe();
    r.controller = true, r.lambda = 0, r.target_l0 = 5;
    Trained t(on, r, sizes(kPlenty), DType::kBF16, StepKind::kSparse);
    t.train(0, 5);
    return std::pair(t.parameters(), t.metrics().loss);
  };
  EXPECT_TRUE(train(true) == train(false));
}

TEST_P(SparseStep, NanReachesTheLoss) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    Trained t(ctx, recipe(), sizes(kPlenty), precision, StepKind::kSparse);
    auto x = batch(0);
    x[kBatch * kWidth / 2] = std::nanf("");
    t.feed(x);
    t.trainer->step(t.ctx, 0);
    EXPECT_TRUE(std::isnan(t.metrics().loss));
  }
}

TEST(SparseStep, SameBitsWithAnyNumberOfThreads) {
  for (const DType precision : {DType::kF32, DType::kBF16}) {
    const auto train = [&](int count) {
      const Threads threads(count);
      Trained t(Context(Device::kCpu), recipe(), sizes(kPlenty), precision, StepKind::kSparse);
      t.train(0, 5);
      return std::pair(t.parameters(), t.metrics().loss);
    };
    const auto one = train(1);
    EXPECT_TRUE(train(2) == one);
    EXPECT_TRUE(train(3) == one);
  }
}

}  // namespace
}  // namespace gsae::test
