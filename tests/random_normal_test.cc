#include "kernels/random_normal.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct RandomNormal : OnDevice {};
ON_DEVICES(RandomNormal);

const Random kRandom(5, Random::kInitModel, 3);

// The formula in doubles, from the same words.
std::vector<double> reference(int64_t n, const Random& random, double scale) {
  std::vector<double> out;
  for (int64_t i = 0; i < n; ++i) {
    const auto w = random.words(static_cast<uint64_t>(i / 2));
    const double u = static_cast<float>(w[0]) * 0x1p-32f + 0x1p-33f, v = static_cast<float>(w[1]) * 0x1p-32f;
    out.push_back(scale * std::sqrt(-2 * std::log(u)) * (i % 2 ? std::sin(2 * M_PI * v) : std::cos(2 * M_PI * v)));
  }
  return out;
}

// On a GPU log is off by 2 units in the last place, half of which remains behind the root; the root, sine or cosine by
// another 1 and 2; two products round: 5 units, 5 * 2^-23. Where 2 v is a multiple of a half, in doubles 2 pi v is not:
// 1e-15 stands for 0. The CPU rounds once.
TEST_P(RandomNormal, MatchesDoubles) {
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const int64_t n : {1, 2, 3, 1024, 1027, 20000}) {
      Guarded out(ctx, t, {n});
      random_normal(ctx, out, kRandom, 0.25f);
      expect_close(out.read(), reference(n, kRandom, 0.25), 5 * 0x1p-23 + (t == DType::kBF16 ? 0x1p-8 : 0), 1e-15);
    }
}

// Of a part the same numbers as of the whole, in bits, whatever the shape, the alignment of the part and the threads.
TEST_P(RandomNormal, APartIsThatOfTheWhole) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    Guarded whole(ctx, t, {9001});
    random_normal(ctx, whole, kRandom, 2);
    const auto want = whole.read();
    const Threads one(1);
    for (const int64_t n : {1, 5, 777, 9000}) {
      Guarded part(ctx, t, {n});
      random_normal(ctx, part, kRandom, 2);
      EXPECT_EQ(part.read(), std::vector<float>(want.begin(), want.begin() + n));
      Guarded shifted(ctx, t, {n + 1});
      random_normal(ctx, Tensor(shifted).rows(1, n + 1), kRandom, 2);
      const auto got = shifted.read();
      EXPECT_EQ(std::vector<float>(got.begin() + 1, got.end()), std::vector<float>(want.begin(), want.begin() + n));
    }
  }
}

// Of n standard normal numbers: each within five standard deviations of the estimate. Pairs are independent.
TEST_P(RandomNormal, Moments) {
  const int64_t n = 100000;
  Guarded out(ctx, DType::kF32, {n});
  random_normal(ctx, out, kRandom, 1);
  const auto x = out.read();
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, pair = 0, next = 0, largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = x[i];
    m1 += v, m2 += v * v, m3 += v * v * v, m4 += v * v * v * v;
    largest = std::max(largest, std::fabs(v));
    if (i % 2) pair += v * x[i - 1];
    if (i % 2 && i + 1 < n) next += v * x[i + 1];
  }
  const double root = std::sqrt(double(n));
  EXPECT_NEAR(m1 / n, 0, 5 / root);
  EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2.0) / root);
  EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15.0) / root);
  EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96.0) / root);
  EXPECT_NEAR(pair / (n / 2), 0, 5 * std::sqrt(2.0) / root);
  EXPECT_NEAR(next / (n / 2), 0, 5 * std::sqrt(2.0) / root);
  EXPECT_GT(largest, 4);  // 2 * 1e5 * P(X > 4) = 6.3
  EXPECT_LT(largest, 6.77);
}

// The ends of what words can be: no infinity, no NaN.
TEST(UniformsForNormal, StayInTheirIntervals) {
  const auto low = uniforms_for_normal({0, 0, 0, 0}), high = uniforms_for_normal({~0u, ~0u, ~0u, ~0u});
  EXPECT_EQ(low[0], 0x1p-33f);
  EXPECT_EQ(low[1], 0);
  EXPECT_EQ(high[0], 1);
  EXPECT_EQ(high[1], 1);
  EXPECT_LT(std::sqrt(-2 * std::log(low[0])), 6.77);
}

TEST_P(RandomNormal, StreamsDiffer) {
  Guarded a(ctx, DType::kF32, {64}), b(ctx, DType::kF32, {64});
  random_normal(ctx, a, kRandom, 1);
  random_normal(ctx, b, Random(6, Random::kInitModel, 3), 1);
  EXPECT_NE(a.read(), b.read());
}

}  // namespace
}  // namespace gsae::test
