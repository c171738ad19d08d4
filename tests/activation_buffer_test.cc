#include "sae/activation_buffer.h"

#include <algorithm>
#include <memory>

#include "tests/harness.h"

namespace gsae::test {
namespace {

constexpr int64_t kWidth = 3;
const std::vector<int64_t> kWidths{kWidth};

struct OneBuffer {
  Context ctx;
  Buffer memory;
  std::unique_ptr<ActivationBuffer> buffer;

  OneBuffer(const Context& on, int64_t slots, DType dtype, int64_t chunk, int64_t batch, bool shuffle,
            uint64_t seed = 1)
      : ctx(on) {
    Arena plan;
    ActivationBuffer(plan, slots, kWidths, dtype, chunk, batch, seed, shuffle);
    memory = Buffer(ctx.device(), plan.used());
    Arena arena(memory);
    buffer = std::make_unique<ActivationBuffer>(arena, slots, kWidths, dtype, chunk, batch, seed, shuffle);
  }

  // Rows (first, -first, 1/4), (first + 1, ...), of which `keep` says which stay.
  void write(int64_t first, const std::vector<uint8_t>& keep, DType dtype = DType::kF32) {
    const int64_t n = static_cast<int64_t>(keep.size());
    std::vector<float> rows;
    for (int64_t r = 0; r < n; ++r) rows.insert(rows.end(), {float(first + r), -float(first + r), 0.25f});
    buffer->expect(ctx, keep);
    buffer->write(ctx, 0, Guarded(ctx, dtype, {n, kWidth}, rows));
  }
  void write(int64_t first, int64_t n) { write(first, std::vector<uint8_t>(n, 1)); }

  // The numbers of the next n rows, each seen to be whole and divided by C.
  std::vector<int64_t> read(int64_t n, double C, bool leave = true) {
    Guarded x(ctx, DType::kF32, {n, kWidth});
    if (leave) buffer->draw(ctx, n);
    else buffer->sample(ctx, n);
    buffer->gather(ctx, 0, x, C);
    const auto values = x.read();
    std::vector<int64_t> numbers;
    for (int64_t r = 0; r < n; ++r) {
      numbers.push_back(std::llround(values[r * kWidth] * C));
      EXPECT_EQ(values[r * kWidth], float(numbers.back()) / float(C));  // C is a power of two: exact
      EXPECT_EQ(values[r * kWidth + 1], -values[r * kWidth]);
      EXPECT_EQ(values[r * kWidth + 2], 0.25f / float(C));
    }
    return numbers;
  }
};

struct ActivationBufferTest : OnDevice {};
ON_DEVICES(ActivationBufferTest);

// Whole numbers up to 256 are exact in bf16.
TEST_P(ActivationBufferTest, EachRowComesOutWholeExactlyOnce) {
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const bool shuffle : {false, true}) {
      OneBuffer f(ctx, 40, t, 20, 8, shuffle);
      std::vector<int64_t> out, want;
      for (int64_t first = 0; first < 240; first += 20) {
        while (!f.buffer->has_room())
          for (const int64_t row : f.read(8, 4)) out.push_back(row);
        std::vector<uint8_t> keep(20, 1);
        keep[0] = keep[7] = 0;  // BOS, padding
        f.write(first, keep, first % 40 ? DType::kBF16 : DType::kF32);
        for (int64_t r = 0; r < 20; ++r)
          if (keep[r]) want.push_back(first + r);
      }
      while (f.buffer->held() > 0)
        for (const int64_t row : f.read(std::min<int64_t>(8, f.buffer->held()), 4)) out.push_back(row);
      EXPECT_EQ(out == want, !shuffle);
      std::sort(out.begin(), out.end());
      EXPECT_EQ(out, want);
    }
}

TEST_P(ActivationBufferTest, RowsArriveInPieces) {
  OneBuffer f(ctx, 20, DType::kF32, 6, 4, false);
  f.buffer->expect(f.ctx, {1, 0, 1, 1, 1, 0});
  Guarded first(f.ctx, DType::kF32, {2, kWidth}, {1, -1, 0.25, 2, -2, 0.25});
  Guarded second(f.ctx, DType::kF32, {4, kWidth}, {3, -3, 0.25, 4, -4, 0.25, 5, -5, 0.25, 6, -6, 0.25});
  f.buffer->write(f.ctx, 0, first);
  f.buffer->write(f.ctx, 0, second, 2);
  EXPECT_EQ(f.read(4, 1), (std::vector<int64_t>{1, 3, 4, 5}));
  EXPECT_EQ(f.buffer->held(), 0);
}

TEST_P(ActivationBufferTest, TheSeedIsTheOrder) {
  const auto order = [&](uint64_t seed) {
    OneBuffer f(ctx, 40, DType::kF32, 20, 8, true, seed);
    std::vector<int64_t> out;
    for (int64_t first = 0; first < 240; first += 20) {
      while (!f.buffer->has_room())
        for (const int64_t row : f.read(8, 1)) out.push_back(row);
      f.write(first, 20);
    }
    return out;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
}

TEST_P(ActivationBufferTest, ASampleStays) {
  for (const bool shuffle : {false, true}) {
    OneBuffer f(ctx, 40, DType::kF32, 40, 8, shuffle), untouched(ctx, 40, DType::kF32, 40, 8, shuffle);
    f.write(0, 40), untouched.write(0, 40);
    const auto sample = f.read(8, 2, false);
    EXPECT_EQ(f.read(8, 2, false), sample);
    EXPECT_EQ(f.buffer->held(), 40);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(f.read(8, 1), untouched.read(8, 1));
    EXPECT_THROW(f.read(8, 2, false), Error);  // nothing is left
  }
}

// By hand: |x|^2 = 2 i^2 + 1/16, over the rows 1 to 20 that are kept; the mean of i^2 over 1..m is (m + 1)(2m + 1) / 6.
TEST_P(ActivationBufferTest, CalibrationIsTheRootMeanSquareNorm) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    OneBuffer f(ctx, 40, t, 25, 8, true);
    std::vector<uint8_t> keep(25, 0);
    std::fill(keep.begin() + 1, keep.begin() + 21, 1);
    f.write(0, keep);
    Guarded x(f.ctx, DType::kF32, {8, kWidth});  // in batches of 8, 8 and 4
    EXPECT_NEAR(f.buffer->calibrate(f.ctx, 0, 1000, x), std::sqrt(2 * 21 * 41 / 6.0 + 0.0625), 1e-12);
    EXPECT_NEAR(f.buffer->calibrate(f.ctx, 0, 11, x), std::sqrt(2 * 12 * 23 / 6.0 + 0.0625), 1e-12);
    EXPECT_EQ(f.buffer->held(), 20);
  }
}

TEST_P(ActivationBufferTest, CalibrationNeedsFiniteRows) {
  OneBuffer f(ctx, 40, DType::kF32, 2, 8, true);
  Guarded x(f.ctx, DType::kF32, {8, kWidth});
  EXPECT_THROW(f.buffer->calibrate(f.ctx, 0, 10, x), Error);  // empty
  f.buffer->expect(f.ctx, {1});
  f.buffer->write(f.ctx, 0, Guarded(f.ctx, DType::kF32, {1, kWidth}, {0, 0, 0}));
  EXPECT_THROW(f.buffer->calibrate(f.ctx, 0, 10, x), Error);  // nothing to scale
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    OneBuffer g(ctx, 40, DType::kF32, 2, 8, true);
    g.buffer->expect(g.ctx, {1, 1});
    g.buffer->write(g.ctx, 0, Guarded(g.ctx, DType::kF32, {2, kWidth}, {1, 1, 1, 1, bad, 1}));
    EXPECT_THROW(g.buffer->calibrate(g.ctx, 0, 10, x), Error);
  }
}

// Places of other widths share the order: what one place gives does not depend on the others, and rows of the same
// token come out together.
TEST_P(ActivationBufferTest, PlacesShareTheOrder) {
  const std::vector<int64_t> widths{kWidth, 5, kWidth};
  OneBuffer alone(ctx, 40, DType::kBF16, 20, 8, true);
  Arena plan;
  ActivationBuffer(plan, 40, widths, DType::kBF16, 20, 8, 1, true);
  const Buffer memory(ctx.device(), plan.used());
  Arena arena(memory);
  ActivationBuffer shared(arena, 40, widths, DType::kBF16, 20, 8, 1, true);
  ASSERT_EQ(shared.places(), 3);
  const auto keep = [](int64_t r) { return uint8_t{r % 7 != 0}; };
  for (int64_t first = 0; first < 120; first += 20) {
    while (!shared.has_room()) {
      const auto numbers = alone.read(8, 1);
      shared.draw(ctx, 8);
      for (int64_t place = 0; place < 3; ++place) {
        const int64_t d = widths[place];
        Guarded x(ctx, DType::kF32, {8, d});
        shared.gather(ctx, place, x, 1);
        const auto values = x.read();
        for (int64_t r = 0; r < 8; ++r)
          for (int64_t c = 0; c < d; ++c)
            ASSERT_EQ(values[r * d + c], place == 0 && c == 1   ? -float(numbers[r])
                                         : place == 0 && c == 2 ? 0.25f
                                                                : float(numbers[r]))
                << place << " " << r << " " << c;
      }
    }
    std::vector<uint8_t> kept;
    for (int64_t r = 0; r < 20; ++r) kept.push_back(keep(first + r));
    alone.write(first, kept);
    shared.expect(ctx, kept);
    for (int64_t place = 0; place < 3; ++place) {
      std::vector<float> rows;
      for (int64_t r = 0; r < 20; ++r)
        for (int64_t c = 0; c < widths[place]; ++c)
          rows.push_back(place == 0 && c == 1 ? -float(first + r) : place == 0 && c == 2 ? 0.25f : float(first + r));
      shared.write(ctx, place, Guarded(ctx, DType::kF32, {20, widths[place]}, rows));
    }
  }
}

TEST_P(ActivationBufferTest, WhatDoesNotFitIsAnError) {
  EXPECT_THROW(OneBuffer(ctx, 10, DType::kF32, 11, 8, true), Error);
  EXPECT_THROW(OneBuffer(ctx, 10, DType::kF32, 5, 11, true), Error);
  OneBuffer f(ctx, 10, DType::kF32, 6, 8, true);
  EXPECT_TRUE(f.buffer->has_room());
  f.write(0, 6);
  EXPECT_FALSE(f.buffer->has_room());
  EXPECT_THROW(f.write(6, 6), Error);
  OneBuffer g(ctx, 10, DType::kF32, 6, 8, true);
  EXPECT_THROW(g.write(0, 7), Error);                                           // more than a chunk
  EXPECT_THROW(OneBuffer(ctx, 10, DType::kF32, 6, 8, true).read(1, 1), Error);  // empty
  OneBuffer h(ctx, 10, DType::kF32, 6, 4, true);
  h.write(0, 6);
  EXPECT_THROW(h.read(5, 1), Error);  // more than a batch
}

}  // namespace
}  // namespace gsae::test
