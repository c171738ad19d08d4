#include "kernels/elementwise.h"

#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct Elementwise : OnDevice {};
ON_DEVICES(Elementwise);

// Less than an access, a block, one more than a block, several ranges of which the last is ragged.
constexpr int64_t kSizes[] = {1, 3, 1024, 1025, 70001};

TEST_P(Elementwise, FillsEveryDtypeWithZero) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    Guarded x(ctx, t, {3, 7});
    fill_zero(ctx, x);
    EXPECT_EQ(x.read(), std::vector<float>(21));
  }
  const auto i32 = on_device<int32_t>(ctx, {9, 9, 9}), part = on_device<int32_t>(ctx, {9, 9, 9, 9, 9});
  const auto i64 = on_device<int64_t>(ctx, {9, 9, 9});
  const auto f64 = on_device<double>(ctx, {9, 9, 9});
  for (const Tensor& t : {Tensor(i32), Tensor(i64), Tensor(f64), Tensor(part).rows(1, 4)}) fill_zero(ctx, t);
  EXPECT_EQ(download<int32_t>(ctx, i32), (std::vector<int32_t>{0, 0, 0}));
  EXPECT_EQ(download<int32_t>(ctx, part), (std::vector<int32_t>{9, 0, 0, 0, 9}));
  EXPECT_EQ(download<int64_t>(ctx, i64), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(download<double>(ctx, f64), (std::vector<double>{0, 0, 0}));
}

// Exact: one rounding, the same as the processor's.
TEST_P(Elementwise, SubtractsEachElement) {
  for (const int64_t n : kSizes) {
    const auto a = uniform(n, 1, DType::kF32, -9, 9), b = uniform(n, 2, DType::kF32, -9, 9);
    std::vector<float> want(n);
    for (int64_t i = 0; i < n; ++i) want[i] = a[i] - b[i];
    Guarded x(ctx, DType::kF32, {n}, a), y(ctx, DType::kF32, {n}, b);
    subtract(ctx, x, y);
    EXPECT_EQ(x.read(), want);
    EXPECT_EQ(y.read(), b);
    EXPECT_THROW(subtract(ctx, x, Guarded(ctx, DType::kF32, {n + 1})), Error);
    EXPECT_THROW(subtract(ctx, x, Guarded(ctx, DType::kBF16, {n})), Error);
  }
}

TEST_P(Elementwise, ScalesEachElement) {
  for (const int64_t n : kSizes) {
    auto v = uniform(n, 1, DType::kF32, -9, 9);
    Guarded x(ctx, DType::kF32, {n}, v);
    multiply(ctx, x, 0.3f);
    for (float& e : v) e *= 0.3f;
    EXPECT_EQ(x.read(), v);
  }
  EXPECT_THROW(multiply(ctx, Guarded(ctx, DType::kBF16, {4}), 2), Error);
}

TEST_P(Elementwise, ViewsNeedNotBeAlignedNorHoldAnything) {
  auto v = uniform(100, 1, DType::kF32, -9, 9);
  Guarded x(ctx, DType::kF32, {100}, v);
  const auto view = [&](int64_t begin, int64_t end) { return Tensor(x).rows(begin, end); };
  multiply(ctx, view(3, 99), 2);
  subtract(ctx, view(1, 40), view(60, 99));
  for (const int64_t at : {0, 50}) {
    multiply(ctx, view(at, at), 2);
    subtract(ctx, view(at, at), view(at, at));
    fill_zero(ctx, view(at, at));
  }
  for (int i = 3; i < 99; ++i) v[i] *= 2;
  for (int i = 1; i < 40; ++i) v[i] -= v[i + 59];
  EXPECT_EQ(x.read(), v);
}

}  // namespace
}  // namespace gsae::test
