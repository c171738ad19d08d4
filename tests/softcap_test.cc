#include "kernels/softcap.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct Softcap : OnDevice {};
ON_DEVICES(Softcap);

// Bounded f32: the 4e-7 of tanh (on a GPU two units in the last place) and two roundings; far below, at, and far beyond
// the cap; a ragged end.
TEST_P(Softcap, MatchesReference) {
  constexpr float kCap = 30;
  for (const float reach : {1e-3f, 40.0f, 1e6f}) {
    const int64_t n = 40001;
    auto x = uniform(n, 1, DType::kF32, -reach, reach);
    x[0] = 0, x[1] = HUGE_VALF, x[2] = -HUGE_VALF;
    std::vector<double> want;
    for (const float v : x) want.push_back(kCap * std::tanh(double(v) / kCap));
    Guarded out(ctx, DType::kF32, {n}, x);
    softcap(ctx, out, kCap);
    expect_close(out.read(), want, 6e-7);

    const Threads one_thread(1);
    Guarded one(ctx, DType::kF32, {n}, x);
    softcap(ctx, one, kCap);
    EXPECT_EQ(one.read(), out.read());
  }
}

TEST_P(Softcap, NanStaysNanAndViewsNeedNotBeAligned) {
  auto x = uniform(50, 1, DType::kF32, -100, 100);
  x[7] = std::nanf("");
  Guarded out(ctx, DType::kF32, {50}, x), all(ctx, DType::kF32, {50}, x);
  softcap(ctx, Tensor(out).rows(1, 50), 30);
  softcap(ctx, all, 30);
  const auto got = out.read(), want = all.read();
  EXPECT_EQ(got[0], x[0]);
  for (int i = 1; i < 50; ++i) {
    if (i == 7) EXPECT_TRUE(std::isnan(got[i]) && std::isnan(want[i]));
    else EXPECT_EQ(got[i], want[i]);
  }
}

TEST_P(Softcap, RefusesACapThatIsNotPositive) {
  Guarded x(ctx, DType::kF32, {2, 3});
  EXPECT_THROW(softcap(ctx, x, 0), Error);
  EXPECT_THROW(softcap(ctx, x, -1), Error);
  EXPECT_THROW(softcap(ctx, Guarded(ctx, DType::kBF16, {2, 3}), 30), Error);
}

}  // namespace
}  // namespace gsae::test
