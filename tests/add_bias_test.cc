#include "kernels/add_bias.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct AddBias : OnDevice {};
ON_DEVICES(AddBias);

// Exact: one rounding. Rows and columns of one, less than, exactly and one more than what a thread and a block take.
TEST_P(AddBias, AddsItToEachRow) {
  for (const auto& [n, d] : {std::pair{1, 1}, {3, 7}, {8, 512}, {9, 516}, {17, 128}, {7, 129}, {33, 2304}}) {
    const auto a = uniform(n * d, 1, DType::kF32, -9, 9), b = uniform(d, 2, DType::kF32, -9, 9);
    std::vector<float> want(a.size());
    for (size_t i = 0; i < a.size(); ++i) want[i] = a[i] + b[i % d];
    Guarded x(ctx, DType::kF32, {n, d}, a), bias(ctx, DType::kF32, {d}, b);
    add_bias(ctx, x, bias);
    EXPECT_EQ(x.read(), want) << n << " " << d;
    EXPECT_EQ(bias.read(), b);
  }
}

TEST_P(AddBias, ViewsNeedNotBeAligned) {
  const auto a = uniform(10 * 8, 1, DType::kF32, -9, 9), b = uniform(9, 2, DType::kF32, -9, 9);
  Guarded x(ctx, DType::kF32, {10, 8}, a), bias(ctx, DType::kF32, {9}, b);
  add_bias(ctx, x, Tensor(bias).rows(1, 9));
  auto want = a;
  for (size_t i = 0; i < want.size(); ++i) want[i] += b[1 + i % 8];
  EXPECT_EQ(x.read(), want);
}

TEST_P(AddBias, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 8}), bias(ctx, DType::kF32, {8});
  EXPECT_THROW(add_bias(ctx, x, Guarded(ctx, DType::kF32, {2})), Error);
  EXPECT_THROW(add_bias(ctx, x, Guarded(ctx, DType::kBF16, {8})), Error);
  EXPECT_THROW(add_bias(ctx, bias, bias), Error);
}

}  // namespace
}  // namespace gsae::test
