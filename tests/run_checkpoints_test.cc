#include "tools/run_checkpoints.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/files.h"

namespace gsae::test {
namespace {

// Every millisecond; and if the wait for one may be no more than a millionth of the time, not soon again after one.
TEST(RunCheckpoints, ASlowDiskMakesThemRarer) {
  for (const auto& [share, again] : {std::pair{1.0, true}, {1e-6, false}}) {
    const TempFolder dir;
    Context ctx(Device::kCpu);
    std::vector<float> values(1000);
    RunCheckpoints checkpoints(dir / "checkpoints", {.seconds = 1e-3, .share = share, .tokens = 0, .keep = 2}, {});
    TrainingState state;
    state.passes.resize(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    EXPECT_TRUE(checkpoints.due(0, 0));
    const auto start = std::chrono::steady_clock::now();
    const auto saved = checkpoints.save(ctx, state, {{"values", view(values.data(), {1000})}}, true);
    EXPECT_TRUE(saved.done) << saved.error;
    // so long that no wait is longer than the time since
    std::this_thread::sleep_for(2 * (std::chrono::steady_clock::now() - start) + std::chrono::milliseconds(2));
    EXPECT_EQ(checkpoints.due(0, 0), again);
  }
}

}  // namespace
}  // namespace gsae::test
