#include "kernels/revive.h"

#include "kernels/graph.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

struct Revive : OnDevice {
  Buffer memory;
  Arena arena;
  // theta, idle and clock on the device
  std::tuple<Tensor, Tensor, Tensor> make(const std::vector<float>& theta, const std::vector<int64_t>& idle,
                                          int64_t t) {
    const auto n = static_cast<int64_t>(theta.size());
    memory = Buffer(ctx.device(), size_t(n) * 12 + 1024);
    arena = Arena(memory);
    const Tensor a = arena.take("theta", DType::kF32, {n}), b = arena.take("idle", DType::kI64, {n}),
                 c = arena.take("clock", DType::kI64, {1});
    upload(ctx, a, theta), upload(ctx, b, idle), upload(ctx, c, std::vector<int64_t>{t});
    return {a, b, c};
  }
};
ON_DEVICES(Revive);

// Exact: one product each; those on the border of the window, NaN, and an idle beyond 32 bits.
TEST_P(Revive, LowersWhatHasBeenSilent) {
  const auto [theta, idle, clock] = make({1, 2, 3, std::nanf(""), 0}, {99, 100, int64_t{1} << 40, 100, 100}, 7);
  revive_latents(ctx, theta, idle, clock, {.window = 100, .rate = 0.25f, .last = 7});
  const auto got = download<float>(ctx, theta);
  EXPECT_EQ(got[0], 1);
  EXPECT_EQ(got[1], 1.5f);
  EXPECT_EQ(got[2], 2.25f);
  EXPECT_TRUE(std::isnan(got[3]));
  EXPECT_EQ(got[4], 0);
  EXPECT_EQ(download<int64_t>(ctx, idle), (std::vector<int64_t>{99, 100, int64_t{1} << 40, 100, 100}));
}

TEST_P(Revive, EndsAfterTheLastStep) {
  const auto [theta, idle, clock] = make({1, 2}, {500, 500}, 8);
  revive_latents(ctx, theta, idle, clock, {.window = 100, .rate = 0.5f, .last = 7});
  EXPECT_EQ(download<float>(ctx, theta), (std::vector<float>{1, 2}));
}

// More latents than a block or a range takes; the step is read from the device, so that a replayed graph ends too.
TEST_P(Revive, EveryLatentInAGraph) {
  constexpr int64_t kLatents = 40'003;
  std::vector<float> t(kLatents, 8);
  std::vector<int64_t> i(kLatents);
  for (int64_t k = 0; k < kLatents; ++k) i[k] = k % 3;
  const auto [theta, idle, clock] = make(t, i, 1);
  Graph graph;
  for (int64_t step = 1; step <= 5; ++step) {
    upload(ctx, clock, std::vector<int64_t>{step});
    graph.run(ctx, [&, theta = theta, idle = idle, clock = clock] {
      revive_latents(ctx, theta, idle, clock, {.window = 2, .rate = 0.5f, .last = 3});
    });
  }
  const auto got = download<float>(ctx, theta);
  for (int64_t k = 0; k < kLatents; ++k) ASSERT_EQ(got[k], k % 3 == 2 ? 1 : 8) << k;
}

TEST_P(Revive, RefusesWrongShapes) {
  const auto [theta, idle, clock] = make({1, 2}, {5, 5}, 1);
  EXPECT_THROW(revive_latents(ctx, theta, clock, clock, {}), Error);
  EXPECT_THROW(revive_latents(ctx, idle, idle, clock, {}), Error);
  EXPECT_THROW(revive_latents(ctx, theta, idle, idle, {}), Error);
}

}  // namespace
}  // namespace gsae::test
