#include "kernels/add.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct Add : OnDevice {};
ON_DEVICES(Add);

// Exact: one rounding, the same as the processor's. Less than an access, a block, one more than a block, several.
TEST_P(Add, AddsEachElement) {
  for (const auto& [n, d] : {std::pair{1, 1}, {1, 3}, {4, 256}, {5, 205}, {7, 4801}}) {
    const auto a = uniform(n * d, 1, DType::kF32, -9, 9), b = uniform(n * d, 2, DType::kF32, -9, 9);
    std::vector<float> want(a.size());
    for (size_t i = 0; i < a.size(); ++i) want[i] = a[i] + b[i];
    Guarded x(ctx, DType::kF32, {n, d}, a), y(ctx, DType::kF32, {n, d}, b);
    add(ctx, x, y);
    EXPECT_EQ(x.read(), want);
    EXPECT_EQ(y.read(), b);
  }
}

// A view of some rows may start at any element.
TEST_P(Add, ViewsNeedNotBeAligned) {
  auto a = uniform(2000, 1, DType::kF32, -9, 9);
  const auto b = uniform(2000, 2, DType::kF32, -9, 9);
  for (const int from : {1, 2, 3}) {
    Guarded x(ctx, DType::kF32, {2000}, a), y(ctx, DType::kF32, {2000}, b);
    add(ctx, Tensor(x).rows(from, 1999), Tensor(y).rows(from, 1999));
    auto want = a;
    for (int i = from; i < 1999; ++i) want[i] += b[i];
    EXPECT_EQ(x.read(), want);
  }
}

TEST_P(Add, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 8}), narrow(ctx, DType::kBF16, {2, 8});
  EXPECT_THROW(add(ctx, x, Guarded(ctx, DType::kF32, {8, 2})), Error);
  EXPECT_THROW(add(ctx, x, narrow), Error);
}

}  // namespace
}  // namespace gsae::test
