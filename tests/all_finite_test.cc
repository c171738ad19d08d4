#include "kernels/all_finite.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct AllFinite : OnDevice {};
ON_DEVICES(AllFinite);

// At the ends, at those of an access, of a block's and of a thread's share.
TEST_P(AllFinite, FindsOneElement) {
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const int64_t n : {1, 7, 4096, 8193, 20011}) {
      const auto v = uniform(n, 1, t, -1e38f, 1e38f);
      EXPECT_TRUE(all_finite(ctx, Guarded(ctx, t, {n}, v)));
      for (const int64_t at : {int64_t{0}, int64_t{6}, int64_t{1024}, int64_t{4095}, int64_t{8192}, n - 1}) {
        if (at >= n) continue;
        auto w = v;
        w[at] = at % 3 == 0 ? std::nanf("") : at % 3 == 1 ? HUGE_VALF : -HUGE_VALF;
        EXPECT_FALSE(all_finite(ctx, Guarded(ctx, t, {n}, w))) << at << " of " << n;
      }
    }
}

TEST_P(AllFinite, EveryKindOfNumber) {
  const float inf = HUGE_VALF, largest = std::numeric_limits<float>::max(), subnormal = 1e-41f;
  EXPECT_TRUE(all_finite(ctx, Guarded(ctx, DType::kF32, {4}, {largest, -largest, subnormal, -0.0f})));
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const float bad : {inf, -inf, std::nanf(""), -std::nanf("")})
      EXPECT_FALSE(all_finite(ctx, Guarded(ctx, t, {3}, {1, bad, 2})));
}

// What lies before or behind does not count, and the answer of one call is forgotten by the next.
TEST_P(AllFinite, ViewsNeedNotBeAligned) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    auto v = uniform(3000, 1, t, -1, 1);
    v[0] = v[2999] = std::nanf("");
    Guarded x(ctx, t, {3000}, v);
    EXPECT_FALSE(all_finite(ctx, x));
    EXPECT_TRUE(all_finite(ctx, Tensor(x).rows(1, 2999)));
    EXPECT_FALSE(all_finite(ctx, Tensor(x).rows(1, 3000)));
    EXPECT_FALSE(all_finite(ctx, Tensor(x).rows(0, 2999)));
    EXPECT_TRUE(all_finite(ctx, Tensor(x).rows(2, 2)));
  }
}

}  // namespace
}  // namespace gsae::test
