#include "sae/sae_suite.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/trainer_fixture.h"

namespace gsae::test {
namespace {

constexpr int64_t kBatch = 64, kChunk = 96, kSlots = 512;

Recipe recipe(double l0, uint64_t seed = 3) {
  Recipe r;
  r.batch = kBatch;
  r.steps = 20;
  r.lr = 3e-3;
  r.lr_warmup = 0;
  r.lambda_warmup = 0;
  r.beta2 = 0.99;
  r.bandwidth = 0.02;
  r.start = Recipe::Start::kData;
  r.start_l0 = 2 * l0;
  r.target_l0 = l0;
  r.controller = true;
  r.seed = seed;
  return r;
}

// Places of two widths, as `att` and `res` may have.
const std::vector<int64_t> kWidths{24, 16};
const std::vector<SaeSuite::Member> kMembers{
    {recipe(3), 0, 40}, {recipe(6), 0, 40}, {recipe(3), 0, 150}, {recipe(4), 1, 70}};

// Some SAEs on the rows of some places, in memory full of NaN, fed and stepped as a run does.
struct Session {
  Context ctx;
  Buffer buffer_memory, suite_memory;
  std::unique_ptr<ActivationBuffer> buffer;
  std::unique_ptr<SaeSuite> suite;
  std::vector<int64_t> places;  // of kWidths
  std::vector<Dictionary> data;
  int64_t arrived = 0;

  Session(const Context& on, const std::vector<int64_t>& of, const std::vector<SaeSuite::Member>& members,
          DType precision, StepKind kind)
      : ctx(on), places(of) {
    std::vector<int64_t> widths;
    for (const int64_t place : places) {
      widths.push_back(kWidths[place]);
      data.emplace_back(kWidths[place], 48, 4, 7 + place);
    }
    Arena plan, suite_plan;
    ActivationBuffer(plan, kSlots, widths, DType::kF32, kChunk, kBatch, 1, true);
    SaeSuite(suite_plan, Device::kCpu, widths, members, precision, kind);
    buffer_memory = nan_memory(ctx, plan.used());
    suite_memory = nan_memory(ctx, suite_plan.used());
    Arena arena(buffer_memory), suite_arena(suite_memory);
    buffer = std::make_unique<ActivationBuffer>(arena, kSlots, widths, DType::kF32, kChunk, kBatch, 1, true);
    suite = std::make_unique<SaeSuite>(suite_arena, Device::kCpu, widths, members, precision, kind);
    fill();
    suite->calibrate(ctx, *buffer, 300);
    buffer->sample(ctx, kBatch);
    suite->start(ctx, *buffer);
  }

  void fill() {
    while (buffer->has_room()) {
      buffer->expect(ctx, std::vector<uint8_t>(kChunk, 1));
      for (size_t i = 0; i < places.size(); ++i)
        buffer->write(ctx, int64_t(i),
                      Guarded(ctx, DType::kF32, {kChunk, kWidths[places[i]]}, data[i].rows(arrived, kChunk)));
      arrived += kChunk;
    }
  }
  void train(int64_t steps) {
    for (int64_t s = 0; s < steps; ++s) {
      fill();
      buffer->draw(ctx, kBatch);
      suite->step(ctx, *buffer, s);
    }
  }
};

struct SaeSuiteTest : OnDevice {};
ON_DEVICES(SaeSuiteTest);

// What each SAE becomes beside the others is what it becomes alone, to the bit: parameters, moments, controller,
// metrics.
TEST_P(SaeSuiteTest, EachIsTrainedAsIfAlone) {
  for (const auto& [precision, kind] :
       {std::pair{DType::kF32, StepKind::kDense}, {DType::kF32, StepKind::kSparse}, {DType::kBF16, StepKind::kAuto}}) {
    const int64_t steps = emulated(ctx) ? 3 : 10;
    Session together(ctx, {0, 1}, kMembers, precision, kind);
    together.train(steps);
    for (size_t i = 0; i < kMembers.size(); ++i) {
      SaeSuite::Member member = kMembers[i];
      const int64_t place = std::exchange(member.place, 0);
      Session alone(ctx, {place}, {member}, precision, kind);
      alone.train(steps);
      EXPECT_EQ(together.suite->scale(place), alone.suite->scale(0));
      SaeTrainer &a = together.suite->trainer(int64_t(i)), &b = alone.suite->trainer(0);
      EXPECT_TRUE(HostParameters(ctx, a.state()) == HostParameters(ctx, b.state())) << i;
      EXPECT_TRUE(HostParameters(ctx, a.state().latents.v, a.state().b_dec_moment) ==
                  HostParameters(ctx, b.state().latents.v, b.state().b_dec_moment))
          << i;
      EXPECT_EQ(values(ctx, a.state().control), values(ctx, b.state().control)) << i;
      const StepMetrics m = a.read_metrics(ctx, 100), n = b.read_metrics(ctx, 100);
      EXPECT_EQ(m.loss, n.loss);
      EXPECT_EQ(m.dead, n.dead);
      EXPECT_EQ(m.sparse_rows, n.sparse_rows);
      EXPECT_EQ(m.rows, steps * kBatch);
    }
  }
}

// States add up, the workspace is the largest: what a suite takes beside another SAE is that SAE's state.
TEST(SaeSuite, TheWorkspaceIsShared) {
  const auto bytes = [](const std::vector<SaeSuite::Member>& members) {
    Arena plan;
    SaeSuite(plan, Device::kCpu, kWidths, members, DType::kBF16);
    return plan.used();
  };
  Arena state;
  SaeState(state, kWidths[0], 150, DType::kBF16);
  std::vector<SaeSuite::Member> members{kMembers[2]};
  const size_t one = bytes(members);
  members.push_back(kMembers[2]);
  EXPECT_EQ(bytes(members), one + state.used());
}

TEST(SaeSuite, RefusesWhatCannotBeShared) {
  Arena plan;
  const auto make = [&](const std::vector<SaeSuite::Member>& members) {
    SaeSuite(plan, Device::kCpu, kWidths, members, DType::kF32);
  };
  EXPECT_THROW(make({}), Error);
  EXPECT_THROW(make({kMembers[3], kMembers[0]}), Error);  // places out of order
  std::vector<SaeSuite::Member> other = kMembers;
  other[1].recipe.batch = 32;
  EXPECT_THROW(make(other), Error);
}

}  // namespace
}  // namespace gsae::test
