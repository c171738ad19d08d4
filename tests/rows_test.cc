#include "kernels/rows.h"

#include <algorithm>
#include <numeric>

#include "tests/harness.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct ScatterRows : OnDevice {};
ON_DEVICES(ScatterRows);
struct GatherRows : OnDevice {};
ON_DEVICES(GatherRows);
struct Rows : OnDevice {};
ON_DEVICES(Rows);
struct SubtractBias : OnDevice {};
ON_DEVICES(SubtractBias);

constexpr DType kFloats[] = {DType::kF32, DType::kBF16};

float rounded(float x, DType t) { return t == DType::kBF16 ? to_float(to_bf16(x)) : x; }

// n different slots of N.
std::vector<int32_t> slots(int64_t n, int64_t N, uint32_t seed) {
  std::vector<int32_t> all(N);
  std::iota(all.begin(), all.end(), 0);
  std::mt19937 rng(seed);
  for (int64_t i = 0; i < n; ++i) std::swap(all[i], all[i + rng() % (N - i)]);
  all.resize(n);
  return all;
}

// Exact: movement, and one rounding from f32 to bf16. Every third row is dropped, and the slots that nothing goes to
// keep what they held.
TEST_P(ScatterRows, MovesEachRowToItsSlot) {
  struct Shape {
    int64_t n, N, d;
  };
  for (const auto [n, N, d] :
       {Shape{1, 1, 1}, Shape{1, 5, 7}, Shape{65, 100, 192}, Shape{200, 200, 33}, Shape{7, 9, 132}, Shape{9, 9, 1288}})
    for (const DType table_type : kFloats)
      for (const DType row_type : kFloats) {
        const auto before = uniform(N * d, 1, table_type, -9, 9), rows = uniform(n * d, 2, row_type, -9, 9);
        auto index = slots(n, N, 3);
        auto want = before;
        for (int64_t r = 0; r < n; ++r) {
          if (r % 3 == 1) index[r] = -1;
          else
            for (int64_t c = 0; c < d; ++c) want[index[r] * d + c] = rounded(rows[r * d + c], table_type);
        }
        Guarded table(ctx, table_type, {N, d}, before);
        scatter_rows(ctx, table, Guarded(ctx, row_type, {n, d}, rows), on_device(ctx, index));
        EXPECT_EQ(table.read(), want);
      }
}

// Moves as scatter_rows does (exact); norms within the rounding of a sum of d squares, in any order. A row that is
// dropped has none, whatever it holds; one that holds NaN or infinity has one that is not finite.
TEST_P(ScatterRows, SaysHowLongEachRowIs) {
  for (const int64_t d : {1, 7, 33, 132, 192, 1288})
    for (const DType table_type : kFloats)
      for (const DType row_type : kFloats) {
        constexpr int64_t n = 37, N = 40;
        const auto before = uniform(N * d, 1, table_type, -9, 9);
        auto rows = uniform(n * d, 2, row_type, -9, 9);
        rows[5 * d] = NAN, rows[6 * d + d - 1] = -INFINITY, rows[9 * d] = NAN;
        auto index = slots(n, N, 3);
        index[4] = index[9] = -1;
        const Guarded from(ctx, row_type, {n, d}, rows);
        Guarded want(ctx, table_type, {N, d}, before), table(ctx, table_type, {N, d}, before),
            norms(ctx, DType::kF32, {n});
        scatter_rows(ctx, want, from, on_device(ctx, index));
        scatter_rows_with_norms(ctx, table, norms, from, on_device(ctx, index));
        const auto moved = table.read(), moved_want = want.read();
        for (size_t i = 0; i < moved.size(); ++i)
          ASSERT_TRUE(moved[i] == moved_want[i] || (std::isnan(moved[i]) && std::isnan(moved_want[i])));
        const auto got = norms.read();
        for (int64_t r = 0; r < n; ++r) {
          double square = 0;
          for (int64_t c = 0; c < d; ++c) square += double(rows[r * d + c]) * rows[r * d + c];
          if (index[r] < 0) EXPECT_EQ(got[r], 0);
          else if (!std::isfinite(square)) EXPECT_FALSE(std::isfinite(got[r])) << r;
          else EXPECT_NEAR(got[r], std::sqrt(square), std::sqrt(square) * 0x1p-24 * double(d + 2)) << r;
        }
      }
}

// Exact: one product in f32. Slots repeat.
TEST_P(GatherRows, TakesEachRowFromItsSlot) {
  struct Shape {
    int64_t n, N, d;
  };
  for (const auto [n, N, d] :
       {Shape{1, 1, 1}, Shape{5, 3, 7}, Shape{65, 100, 192}, Shape{200, 50, 33}, Shape{7, 9, 132}, Shape{9, 5, 1288}})
    for (const DType t : kFloats)
      for (const float scale : {1.0f, 0.3f}) {
        const auto table = uniform(N * d, 1, t, -9, 9);
        std::vector<int32_t> index(n);
        std::mt19937 rng(2);
        for (int32_t& i : index) i = static_cast<int32_t>(rng() % N);
        index[0] = static_cast<int32_t>(N - 1);
        std::vector<float> want(n * d);
        for (int64_t i = 0; i < n * d; ++i) want[i] = scale * table[index[i / d] * d + i % d];
        Guarded out(ctx, DType::kF32, {n, d});
        gather_rows(ctx, out, Guarded(ctx, t, {N, d}, table), on_device(ctx, index), scale);
        EXPECT_EQ(out.read(), want);
      }
}

// An index comes from host arithmetic; a wrong one would write anywhere in memory. Nothing is moved.
TEST(RowsCpu, IndexOutOfRangeIsRefused) {
  Context ctx(Device::kCpu);
  const std::vector<float> before(4 * 3, 5.0f);
  for (const auto& index : std::vector<std::vector<int32_t>>{{0, 4}, {0, -2}, {0, INT32_MAX}, {0, INT32_MIN}}) {
    std::vector<int32_t> at = index;
    Guarded table(ctx, DType::kF32, {4, 3}, before), rows(ctx, DType::kF32, {2, 3});
    EXPECT_THROW(scatter_rows(ctx, table, rows, view(at.data(), {2})), Error) << index[1];
    EXPECT_EQ(table.read(), before);
    EXPECT_THROW(gather_rows(ctx, rows, table, view(at.data(), {2}), 1), Error) << index[1];
  }
  std::vector<int32_t> dropped{0, -1};  // a slot for scatter, none for gather
  Guarded table(ctx, DType::kF32, {4, 3}, before), rows(ctx, DType::kF32, {2, 3});
  EXPECT_NO_THROW(scatter_rows(ctx, table, rows, view(dropped.data(), {2})));
  EXPECT_THROW(gather_rows(ctx, rows, table, view(dropped.data(), {2}), 1), Error);
}

TEST_P(Rows, RefusesWrongShapes) {
  Guarded table(ctx, DType::kF32, {4, 3}), rows(ctx, DType::kF32, {2, 3}), wide(ctx, DType::kF32, {2, 4}),
      rows16(ctx, DType::kBF16, {2, 3}), floats(ctx, DType::kF32, {2});
  Guarded at2(ctx, DType::kI32, {2}), at3(ctx, DType::kI32, {3});
  EXPECT_THROW(scatter_rows(ctx, table, wide, at2), Error);
  EXPECT_THROW(scatter_rows(ctx, table, rows, at3), Error);
  EXPECT_THROW(scatter_rows(ctx, table, rows, floats), Error);
  EXPECT_THROW(gather_rows(ctx, wide, table, at2, 1), Error);
  EXPECT_THROW(gather_rows(ctx, rows, table, at3, 1), Error);
  EXPECT_THROW(gather_rows(ctx, rows16, table, at2, 1), Error);
  EXPECT_THROW(gather_rows(ctx, rows, table, floats, 1), Error);
}

// Exact: one subtraction, and one rounding to bf16.
TEST_P(SubtractBias, SubtractsFromEachRow) {
  struct Shape {
    int64_t n, d;
  };
  for (const auto [n, d] : {Shape{1, 1}, Shape{3, 7}, Shape{130, 193}, Shape{7, 132}, Shape{9, 1288}})
    for (const DType t : kFloats) {
      const auto x = uniform(n * d, 1, DType::kF32, -9, 9), bias = uniform(d, 2, DType::kF32, -9, 9);
      std::vector<float> want(n * d);
      for (int64_t i = 0; i < n * d; ++i) want[i] = rounded(x[i] - bias[i % d], t);
      Guarded out(ctx, t, {n, d}), b(ctx, DType::kF32, {d}, bias), in(ctx, DType::kF32, {n, d}, x);
      subtract_bias(ctx, out, in, b);
      EXPECT_EQ(out.read(), want);
      EXPECT_THROW(subtract_bias(ctx, out, in, Guarded(ctx, DType::kF32, {d + 1})), Error);
      EXPECT_THROW(subtract_bias(ctx, Guarded(ctx, t, {n + 1, d}), in, b), Error);
      EXPECT_THROW(subtract_bias(ctx, out, Guarded(ctx, DType::kBF16, {n, d}), b), Error);
    }
}

}  // namespace
}  // namespace gsae::test
