#include "kernels/elementwise.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr int64_t kSize = 70001;  // several ranges, the last one ragged

TEST(FillZeroCpu, EveryDtype) {
  Context ctx(Device::kCpu);
  for (const DType t : {DType::kF32, DType::kBF16}) {
    Guarded x(ctx, t, {3, 7});
    fill_zero(ctx, x);
    EXPECT_EQ(x.read(), std::vector<float>(21));
  }
  std::vector<int32_t> i32(5, 9);
  std::vector<int64_t> i64(5, 9);
  std::vector<double> f64(5, 9);
  fill_zero(ctx, view(i32.data(), {4}));
  fill_zero(ctx, view(i64.data(), {4}));
  fill_zero(ctx, view(f64.data(), {4}));
  EXPECT_EQ(i32, (std::vector<int32_t>{0, 0, 0, 0, 9}));
  EXPECT_EQ(i64, (std::vector<int64_t>{0, 0, 0, 0, 9}));
  EXPECT_EQ(f64, (std::vector<double>{0, 0, 0, 0, 9}));
}

// Exact: one rounding, the same as the processor's.
TEST(SubtractCpu, SubtractsEachElement) {
  Context ctx(Device::kCpu);
  const auto a = uniform(kSize, 1, DType::kF32, -9, 9), b = uniform(kSize, 2, DType::kF32, -9, 9);
  std::vector<float> want(kSize);
  for (int64_t i = 0; i < kSize; ++i) want[i] = a[i] - b[i];
  Guarded x(ctx, DType::kF32, {kSize}, a), y(ctx, DType::kF32, {kSize}, b);
  subtract(ctx, x, y);
  EXPECT_EQ(x.read(), want);
  EXPECT_EQ(y.read(), b);
  EXPECT_THROW(subtract(ctx, x, Guarded(ctx, DType::kF32, {kSize - 1})), Error);
  EXPECT_THROW(subtract(ctx, x, Guarded(ctx, DType::kBF16, {kSize})), Error);
}

TEST(MultiplyCpu, ScalesEachElement) {
  Context ctx(Device::kCpu);
  auto v = uniform(kSize, 1, DType::kF32, -9, 9);
  Guarded x(ctx, DType::kF32, {kSize}, v);
  multiply(ctx, x, 0.3f);
  for (float& e : v) e *= 0.3f;
  EXPECT_EQ(x.read(), v);
  EXPECT_THROW(multiply(ctx, Guarded(ctx, DType::kBF16, {4}), 2), Error);
}

}  // namespace
}  // namespace gsae::test
