#include "kernels/rope.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct Rope : OnDevice {};
ON_DEVICES(Rope);

// Angles are defined by their f32 roundings, so that a test against cos(t * theta^(-2i/dh)) in
// doubles would have to forgive t * 2^-24: it is made from the same two roundings instead.
TEST_P(Rope, TableHoldsCosineAndSineOfRoundedAngles) {
  const int64_t T = 1030, half = 128;
  Guarded table(ctx, DType::kF32, {T, 2, half});
  rope_table(ctx, table, 10000);
  std::vector<double> want;
  for (int64_t t = 0; t < T; ++t)
    for (const bool sine : {false, true})
      for (int64_t i = 0; i < half; ++i) {
        const float frequency = 1.0f / static_cast<float>(std::pow(10000.0, double(2 * i) / (2 * half)));
        const double angle = static_cast<float>(t) * frequency;
        want.push_back(sine ? std::sin(angle) : std::cos(angle));
      }
  expect_close(table.read(), want, 0x1p-24);
}

// Printed by transformers 5.23.0 (Gemma2RotaryEmbedding, head_dim 16, theta 10000): position 3 and 1000.
TEST_P(Rope, TableMatchesTransformers) {
  Guarded table(ctx, DType::kF32, {1001, 2, 8});
  rope_table(ctx, table, 10000);
  const auto got = table.read();
  const auto row = [&](int64_t t, int64_t which) {
    const auto at = got.begin() + (2 * t + which) * 8;
    return std::vector<float>(at, at + 8);
  };
  expect_close(row(3, 0),
               std::vector<double>{-0.989992499, 0.5827536582, 0.9553365111, 0.9955033659, 0.9995500445, 0.9999549984,
                                   0.9999955296, 0.9999995827},
               0, 0x1p-22);
  expect_close(row(3, 1),
               std::vector<double>{0.1411200016, 0.8126488924, 0.2955202162, 0.0947260931, 0.0299954991, 0.0094866910,
                                   0.0029999956, 9.4868324e-04},
               0, 0x1p-22);
  expect_close(row(1000, 0),
               std::vector<double>{0.5623790621, -0.477397918, 0.8623188734, 0.9786823987, -0.839071512, -0.999786078,
                                   0.5403023362, 0.9504152536},
               0, 1000 * 0x1p-23);
  expect_close(row(1000, 1),
               std::vector<double>{0.8268795609, 0.8786872029, -0.506365656, 0.2053794413, -0.544021129, -0.020683808,
                                   0.8414709568, 0.3109836280},
               0, 1000 * 0x1p-23);
}

TEST_P(Rope, SplitMatchesDoubles) {
  struct Shape {
    int64_t B, T, heads, kv_heads, dh;
  };
  // half a head of one access, less, several; a row of one block's accesses, of more and of fewer
  for (const auto [B, T, heads, kv_heads, dh] :
       {Shape{1, 1, 1, 1, 2}, Shape{2, 21, 6, 3, 16}, Shape{3, 5, 4, 1, 64}, Shape{1, 40, 3, 3, 6},
        Shape{2, 3, 2, 1, 8}, Shape{1, 2, 8, 4, 256}, Shape{2, 2, 9, 4, 256}})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t width = (heads + 2 * kv_heads) * dh, half = dh / 2, n = B * T;
      const auto qkv = uniform(n * width, 1, dtype, -2, 2);
      const auto angles = uniform((T + 3) * dh, 2, DType::kF32, -1, 1);  // not angles: any numbers rotate
      std::vector<double> q(n * heads * dh), k(n * kv_heads * dh), v(k.size()), qt(q.size()), kt(k.size());
      for (int64_t b = 0; b < B; ++b)
        for (int64_t t = 0; t < T; ++t)
          for (int64_t h = 0; h < heads + 2 * kv_heads; ++h)
            for (int64_t i = 0; i < dh; ++i) {
              const float* from = qkv.data() + (b * T + t) * width + h * dh;
              const float *c = angles.data() + 2 * t * half, *s = c + half;
              const double first = from[i % half], second = from[i % half + half];
              const double one = i < half ? first * c[i] : second * c[i - half];
              const double two = i < half ? -second * s[i] : first * s[i - half];
              const bool query = h < heads, key = !query && h < heads + kv_heads;
              const int64_t head = query ? h : key ? h - heads : h - heads - kv_heads;
              const size_t at = ((b * (query ? heads : kv_heads) + head) * T + t) * dh + i;
              if (query) q[at] = one + two, qt[at] = std::fabs(one) + std::fabs(two);
              else if (key) k[at] = one + two, kt[at] = std::fabs(one) + std::fabs(two);
              else v[at] = from[i];
            }
      Guarded gq(ctx, dtype, {B, heads, T, dh}), gk(ctx, dtype, {B, kv_heads, T, dh});
      Guarded gv(ctx, dtype, {B, kv_heads, T, dh});
      rope_split(ctx, gq, gk, gv, Guarded(ctx, dtype, {n, width}, qkv),
                 Guarded(ctx, DType::kF32, {T + 3, 2, half}, angles));
      // two products and a sum, which may cancel: 2^-24 of the terms for each product and of the result
      const double rounding = dtype == DType::kF32 ? 0x1p-24 : 0x1p-24 + 0x1p-8;
      expect_close(gq.read(), q, rounding, 0x1p-24, qt);
      expect_close(gk.read(), k, rounding, 0x1p-24, kt);
      expect_close(gv.read(), v, 0);
    }
}

TEST_P(Rope, SplitRefusesWrongShapes) {
  Guarded q(ctx, DType::kF32, {1, 2, 4, 6}), k(ctx, DType::kF32, {1, 1, 4, 6}), qkv(ctx, DType::kF32, {4, 24});
  Guarded table(ctx, DType::kF32, {4, 2, 3}), short_table(ctx, DType::kF32, {3, 2, 3});
  Guarded odd(ctx, DType::kF32, {1, 2, 4, 5}), wide(ctx, DType::kF32, {4, 25});
  EXPECT_THROW(rope_split(ctx, q, k, k, qkv, short_table), Error);
  EXPECT_THROW(rope_split(ctx, q, k, k, wide, table), Error);
  EXPECT_THROW(rope_split(ctx, odd, k, k, qkv, table), Error);
  Guarded narrow(ctx, DType::kBF16, {4, 24}), narrow_table(ctx, DType::kBF16, {4, 2, 3});
  EXPECT_THROW(rope_split(ctx, q, k, k, narrow, table), Error);
  EXPECT_THROW(rope_split(ctx, q, k, k, qkv, narrow_table), Error);
}

}  // namespace
}  // namespace gsae::test
