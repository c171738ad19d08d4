#include "kernels/timer.h"

#include <chrono>

#include "kernels/matmul.h"
#include "kernels/transfer.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

struct TimerOn : OnDevice {};
ON_DEVICES(TimerOn);

// No more than the clock on the wall says, and not nothing.
TEST_P(TimerOn, TimesTheWork) {
  Guarded a(ctx, DType::kF32, {64, 64}, uniform(64 * 64, 1, DType::kF32, -1, 1)), out(ctx, DType::kF32, {64, 64});
  const auto start = std::chrono::steady_clock::now();
  const double seconds = time_on_device(ctx, [&] {
    for (int i = 0; i < 10; ++i) matmul(ctx, out, a, a);
  });
  EXPECT_GT(seconds, 0);
  EXPECT_LE(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

TEST_P(TimerOn, WaitsForTheWork) {
  Guarded x(ctx, DType::kF32, {4}, {1, 2, 3, 4});
  Readback readback(ctx, 16);
  time_on_device(ctx, [&] { readback.request(ctx, x); });
  EXPECT_TRUE(readback.ready());
}

}  // namespace
}  // namespace gsae::test
