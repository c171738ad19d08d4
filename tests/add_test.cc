#include "kernels/add.h"

#include "kernels/all_finite.h"
#include "kernels/next_tokens.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

// Exact: one rounding, the same as the processor's.
TEST(AddCpu, AddsEachElement) {
  Context ctx(Device::kCpu);
  const int64_t n = 7, d = 4801;  // more than one range
  const auto a = uniform(n * d, 1, DType::kF32, -9, 9), b = uniform(n * d, 2, DType::kF32, -9, 9);
  std::vector<float> want(a.size());
  for (size_t i = 0; i < a.size(); ++i) want[i] = a[i] + b[i];
  Guarded x(ctx, DType::kF32, {n, d}, a);
  add(ctx, x, Guarded(ctx, DType::kF32, {n, d}, b));
  EXPECT_EQ(x.read(), want);
  EXPECT_THROW(add(ctx, x, Guarded(ctx, DType::kF32, {d, n}, b)), Error);
}

TEST(AllFiniteCpu, FindsOneElement) {
  Context ctx(Device::kCpu);
  for (const DType t : {DType::kF32, DType::kBF16}) {
    auto v = uniform(70000, 1, t, -1e38f, 1e38f);
    EXPECT_TRUE(all_finite(ctx, Guarded(ctx, t, {70000}, v)));
    for (const int at : {0, 32768, 69999})
      for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
        auto w = v;
        w[at] = bad;
        EXPECT_FALSE(all_finite(ctx, Guarded(ctx, t, {70000}, w))) << at << " " << bad;
      }
  }
}

TEST(NextTokensCpu, ShiftsEachRow) {
  Context ctx(Device::kCpu);
  std::vector<int32_t> tokens{2, 5, 9, 2, 7, 0}, targets(6, 99);
  next_tokens(ctx, view(targets.data(), {2, 3}), view(tokens.data(), {2, 3}));
  EXPECT_EQ(targets, (std::vector<int32_t>{5, 9, -1, 7, 0, -1}));
}

}  // namespace
}  // namespace gsae::test
