#include "kernels/next_tokens.h"

#include <numeric>

#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct NextTokens : OnDevice {};
ON_DEVICES(NextTokens);

TEST_P(NextTokens, ShiftsEachRow) {
  const auto tokens = on_device<int32_t>(ctx, {2, 5, 9, 2, 7, 0}),
             targets = on_device<int32_t>(ctx, {9, 9, 9, 9, 9, 9});
  next_tokens(ctx, Tensor(targets).reshape({2, 3}), Tensor(tokens).reshape({2, 3}));
  EXPECT_EQ(download<int32_t>(ctx, targets), (std::vector<int32_t>{5, 9, -1, 7, 0, -1}));
}

TEST_P(NextTokens, AnyShape) {
  for (const auto& [B, T] : {std::pair<int64_t, int64_t>{1, 1}, {5, 1}, {2, 128}, {3, 257}, {1, 1000}}) {
    std::vector<int32_t> v(B * T), want;
    std::iota(v.begin(), v.end(), 3);
    for (int64_t i = 0; i < B * T; ++i) want.push_back(i % T == T - 1 ? -1 : static_cast<int32_t>(i + 4));
    const auto tokens = on_device(ctx, v), targets = on_device(ctx, v);
    next_tokens(ctx, Tensor(targets).reshape({B, T}), Tensor(tokens).reshape({B, T}));
    EXPECT_EQ(download<int32_t>(ctx, targets), want);
  }
}

TEST_P(NextTokens, RefusesWrongShapes) {
  const auto tokens = on_device<int32_t>(ctx, {1, 2, 3, 4});
  Guarded floats(ctx, DType::kF32, {2, 2});
  EXPECT_THROW(next_tokens(ctx, tokens, tokens), Error);
  EXPECT_THROW(next_tokens(ctx, floats, Tensor(tokens).reshape({2, 2})), Error);
}

}  // namespace
}  // namespace gsae::test
