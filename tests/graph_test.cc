#include "kernels/graph.h"

#include "kernels/matmul.h"
#include "kernels/rms_norm.h"
#include "kernels/transfer.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr int64_t kN = 5, kD = 32;

// y = rms_norm(x); x = y W + bias; c += y^T y: ops of one kind behind another, one that uses the workspace, one that
// adds to what an earlier run left.
struct GraphOn : OnDevice {
  struct State {
    explicit State(Context& ctx)
        : x(ctx, DType::kF32, {kN, kD}, uniform(kN * kD, 1, DType::kF32, -4, 4)),
          y(ctx, DType::kF32, {kN, kD}),
          c(ctx, DType::kF32, {kD, kD}, std::vector<float>(kD * kD, 0.0f)) {}
    Guarded x, y, c;
  };
  void ops(State& s) {
    rms_norm(ctx, s.y, s.x, scale, 1e-6f);
    matmul(ctx, s.x, s.y, w, {.bias = bias});
    matmul(ctx, s.c, s.y, s.y, {.transpose_a = true, .accumulate = true});
  }
  void expect_same(State& a, State& b) {
    EXPECT_EQ(a.x.read(), b.x.read());
    EXPECT_EQ(a.c.read(), b.c.read());
  }

  Guarded scale{ctx, DType::kF32, {kD}, uniform(kD, 2, DType::kF32, -1, 1)};
  Guarded w{ctx, DType::kF32, {kD, kD}, uniform(kD* kD, 3, DType::kF32, -0.25f, 0.25f)};
  Guarded bias{ctx, DType::kF32, {kD}, uniform(kD, 4, DType::kF32, -1, 1)};
};
ON_DEVICES(GraphOn);

// Eager, captured, replayed and replayed again: the bits of the same ops one by one.
TEST_P(GraphOn, ReplaysTheSameBits) {
  State one_by_one(ctx), graphed(ctx);
  Graph graph;
  int bodies = 0;
  for (int run = 0; run < 5; ++run) {
    ops(one_by_one);
    graph.run(ctx, [&] {
      ++bodies;
      ops(graphed);
    });
    expect_same(one_by_one, graphed);
  }
  EXPECT_EQ(bodies, on_cuda() ? 2 : 5);
}

// Several runs before anyone waits.
TEST_P(GraphOn, ReplaysBehindEachOther) {
  State one_by_one(ctx), graphed(ctx);
  Graph graph;
  for (int run = 0; run < 6; ++run) graph.run(ctx, [&] { ops(graphed); });
  for (int run = 0; run < 6; ++run) ops(one_by_one);
  expect_same(one_by_one, graphed);
}

TEST_P(GraphOn, GraphsMayBeSwitchedOff) {
  State one_by_one(ctx), graphed(ctx);
  Graph graph;
  int bodies = 0;
  for (const bool on : {true, false, true, true, false, true}) {
    ctx.graphs = on;
    ops(one_by_one);
    graph.run(ctx, [&] {
      ++bodies;
      ops(graphed);
    });
  }
  expect_same(one_by_one, graphed);
  EXPECT_EQ(bodies, on_cuda() ? 4 : 6);  // the first, two while they are off, one capture
}

// What changes from run to run is in device memory, where a replay finds the new values.
TEST_P(GraphOn, ReadsWhatIsInDeviceMemoryNow) {
  State one_by_one(ctx), graphed(ctx);
  Upload upload(ctx, kN * kD * sizeof(float));
  Graph graph;
  for (uint32_t run = 0; run < 5; ++run) {
    std::vector<float> x = uniform(kN * kD, 10 + run, DType::kF32, -4, 4);
    for (State* s : {&one_by_one, &graphed}) upload.send(ctx, s->x, view(x.data(), {kN, kD}));
    ops(one_by_one);
    graph.run(ctx, [&] { ops(graphed); });
  }
  expect_same(one_by_one, graphed);
}

// The stream does not stay in capture, and the graph is captured the next time.
TEST_P(GraphOn, SurvivesABodyThatThrows) {
  State one_by_one(ctx), graphed(ctx);
  Graph graph;
  const auto run = [&] { graph.run(ctx, [&] { ops(graphed); }); };
  run();
  if (on_cuda()) {
    const auto throws = [&] {
      graph.run(ctx, [&] {
        ops(graphed);
        throw Error("a body that throws");
      });
    };
    EXPECT_THROW(throws(), Error);
  }
  for (int i = 0; i < 3; ++i) run();
  for (int i = 0; i < 4; ++i) ops(one_by_one);
  expect_same(one_by_one, graphed);
}

// Uploads, waits and allocations cannot be repeated: they end the capture with an Error, and nothing else.
TEST_P(GraphOn, RefusesWhatCannotBeRepeated) {
  if (!on_cuda()) GTEST_SKIP() << "nothing is captured on cpu";
  State s(ctx);
  std::vector<float> x = uniform(kN * kD, 9, DType::kF32, -4, 4);
  Upload upload(ctx, kN * kD * sizeof(float));
  const auto refused = [&](const Graph::Body& body) {
    Graph graph;
    graph.run(ctx, [] {});
    EXPECT_THROW(graph.run(ctx, body), Error);
    State one_by_one(ctx), graphed(ctx);
    for (int i = 0; i < 3; ++i) ops(one_by_one), ops(graphed);
    expect_same(one_by_one, graphed);
  };
  refused([&] { ctx.synchronize(); });
  refused([&] { Buffer grown(Device::kCuda, 1024); });
  refused([&] { upload.send(ctx, s.x, view(x.data(), {kN, kD})); });
}

// Two of them, and ops in between.
TEST_P(GraphOn, GraphsTakeTurns) {
  State one_by_one(ctx), graphed(ctx);
  Graph first, second;
  for (int run = 0; run < 4; ++run) {
    for (int i = 0; i < 3; ++i) ops(one_by_one);
    first.run(ctx, [&] { ops(graphed); });
    ops(graphed);
    second.run(ctx, [&] { ops(graphed); });
  }
  expect_same(one_by_one, graphed);
}

}  // namespace
}  // namespace gsae::test
