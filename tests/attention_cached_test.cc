#include "kernels/attention_cached.h"

#include <tuple>

#include "tests/attention_reference.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

// A whole attention, taken in steps of so many positions; T is their sum. The ring has `capacity` rows.
struct Case {
  AttentionCase whole;
  std::vector<int64_t> steps;
  int64_t capacity;
  friend void PrintTo(const Case& c, std::ostream* os) { *os << c.whole.name; }
};

// (B, H, T, dh): positions [begin, end)
std::vector<float> slice(const std::vector<float>& x, int64_t matrices, int64_t T, int64_t size, int64_t begin,
                         int64_t end) {
  std::vector<float> part;
  for (int64_t m = 0; m < matrices; ++m)
    part.insert(part.end(), x.begin() + (m * T + begin) * size, x.begin() + (m * T + end) * size);
  return part;
}

Guarded start_at(Context& ctx, int64_t position) {
  const auto s = static_cast<int32_t>(position);
  float bits;
  std::memcpy(&bits, &s, sizeof bits);
  return Guarded(ctx, DType::kF32, {1}, {bits});
}
Tensor as_i32(Tensor t) {
  t.dtype = DType::kI32;
  return t;
}

// out as attention() would have it, (B * T, Hq * dh). The cache is NaN where nothing was put.
std::vector<float> run(Context& ctx, const Case& c, const AttentionOperands& x, DType in,
                       DType out_type = DType::kF32) {
  const AttentionCase& w = c.whole;
  Guarded k_cache(ctx, in, {w.B, w.kv_heads, c.capacity, w.size}),
      v_cache(ctx, in, {w.B, w.kv_heads, c.capacity, w.size});
  std::vector<float> all(w.B * w.T * w.heads * w.size);
  int64_t start = 0;
  for (const int64_t step : c.steps) {
    const auto part = [&](const std::vector<float>& v, int64_t heads) {
      return Guarded(ctx, in, {w.B, heads, step, w.size}, slice(v, w.B * heads, w.T, w.size, start, start + step));
    };
    const Guarded q = part(x.q, w.heads), k = part(x.k, w.kv_heads), v = part(x.v, w.kv_heads),
                  position = start_at(ctx, start);
    Guarded out(ctx, out_type, {w.B * step, w.heads * w.size});
    attention_cached(ctx, out, q, k, v, k_cache, v_cache, as_i32(position), w.options);
    append_cached(ctx, k_cache, v_cache, k, v, as_i32(position));
    const auto rows = out.read();
    const int64_t width = w.heads * w.size;
    for (int64_t b = 0; b < w.B; ++b)
      std::copy_n(rows.begin() + b * step * width, step * width, all.begin() + (b * w.T + start) * width);
    start += step;
  }
  EXPECT_EQ(start, w.T);
  k_cache.read(), v_cache.read();  // nothing beside them was written
  return all;
}

std::vector<int64_t> one_by_one(int64_t first, int64_t T) {
  std::vector<int64_t> steps{first};
  steps.insert(steps.end(), T - first, 1);
  return steps;
}

// One position at a time from the first, or behind a beginning; several pieces; rings as short as they may be, longer,
// and of a prime length, gone round several times; windows of one, and beyond T; one to eight query heads to a key
// head, and more; odd sizes; scores beyond the cap and beyond the range of exp; so long that a cache falls into parts.
const std::vector<Case> kCases{
    {{"from_the_first", 1, 2, 1, 9, 16, {.scale = 0.25f}}, one_by_one(1, 9), 9},
    {{"two_sequences", 2, 4, 2, 30, 32, {.scale = 0.2f, .softcap = 50}}, one_by_one(11, 30), 40},
    {{"ring", 1, 4, 2, 50, 32, {.scale = 0.2f, .softcap = 5, .window = 8}}, one_by_one(3, 50), 8},
    {{"shortest_ring", 2, 3, 1, 40, 24, {.scale = 0.2f, .window = 7}}, one_by_one(20, 40), 6},
    {{"prime_ring", 1, 2, 2, 45, 16, {.scale = 0.25f, .window = 7}}, one_by_one(1, 45), 11},
    {{"window_one", 1, 3, 3, 12, 16, {.scale = 0.25f, .window = 1}}, one_by_one(2, 12), 1},
    {{"window_beyond_length", 1, 2, 1, 20, 128, {.scale = 0.1f, .window = 4096}}, one_by_one(5, 20), 20},
    {{"pieces", 1, 4, 2, 97, 64, {.scale = 0.125f, .softcap = 50}, 3}, {33, 1, 40, 17, 1, 5}, 97},
    {{"pieces_sliding", 1, 4, 2, 121, 64, {.scale = 0.125f, .softcap = 50, .window = 16}, 3}, {5, 40, 3, 60, 13}, 16},
    {{"pieces_longer_than_the_ring", 1, 2, 1, 70, 16, {.scale = 0.25f, .window = 5}}, {30, 30, 10}, 5},
    {{"odd_size", 1, 2, 1, 24, 5, {.scale = 1, .softcap = 2}}, {7, 1, 1, 12, 3}, 24},
    {{"odd_size_above_64", 1, 2, 1, 22, 67, {.scale = 0.3f, .window = 9}}, {9, 1, 1, 8, 3}, 9},
    {{"odd_size_above_128", 1, 2, 2, 16, 133, {.scale = 0.1f, .softcap = 50, .window = 9}}, {9, 1, 1, 5}, 8},
    {{"many_heads", 1, 20, 1, 18, 16, {.scale = 0.25f, .softcap = 20}, 2}, {8, 1, 1, 6, 2}, 18},
    {{"eight_to_one", 1, 8, 1, 14, 32, {.scale = 0.25f}, 2}, one_by_one(9, 14), 14},
    {{"like_27b", 2, 4, 2, 70, 128, {.scale = 0.0833f, .softcap = 50, .window = 31}, 2}, {60, 1, 1, 1, 6, 1}, 31},
    {{"like_2b", 1, 4, 2, 80, 256, {.scale = 0.0625f, .softcap = 50, .window = 63}, 2}, {66, 1, 1, 11, 1}, 63},
    // one, two, four and more rows of q to a block, of each size of heads, even and odd
    {{"rows_of_5", 1, 1, 1, 13, 5, {.scale = 0.4f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"rows_of_64", 1, 1, 1, 13, 64, {.scale = 0.125f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"rows_of_67", 1, 1, 1, 13, 67, {.scale = 0.125f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"rows_of_128", 1, 1, 1, 13, 128, {.scale = 0.09f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"rows_of_133", 1, 1, 1, 13, 133, {.scale = 0.09f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"rows_of_256", 1, 1, 1, 13, 256, {.scale = 0.0625f, .window = 6}}, {1, 2, 4, 6}, 13},
    {{"beyond_the_cap", 1, 2, 1, 70, 64, {.scale = 1, .softcap = 50}, 6}, {60, 1, 1, 1, 7}, 70},
    {{"beyond_exp", 1, 2, 1, 80, 64, {.scale = 1}, 6}, {70, 1, 1, 8}, 80},
    {{"parts", 1, 2, 1, 1100, 8, {.scale = 0.3f, .softcap = 50}, 2}, {1090, 1, 1, 8}, 1100},
    {{"parts_of_a_ring", 1, 2, 1, 900, 8, {.scale = 0.3f, .softcap = 50, .window = 600}, 2}, {890, 1, 1, 8}, 600},
};

using Parameters = std::tuple<Device, DType, Case>;
struct AttentionCached : testing::TestWithParam<Parameters> {
  void SetUp() override { require(device); }
  Device device = std::get<0>(GetParam());
  DType in = std::get<1>(GetParam());
  const Case& c = std::get<2>(GetParam());
  Context ctx{available(device) ? device : Device::kCpu};
};
std::string name_of(const testing::TestParamInfo<Parameters>& p) {
  const auto& [device, t, c] = p.param;
  return std::string(name(device)) + "_" + name(t) + "_" + c.whole.name;
}
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCached,
                         testing::Combine(testing::ValuesIn(devices()), testing::Values(DType::kF32, DType::kBF16),
                                          testing::ValuesIn(kCases)),
                         name_of);

// The definition of the whole, in doubles, whatever the steps. f32 arithmetic for bf16 operands too.
TEST_P(AttentionCached, MatchesTheWhole) {
  if (emulated(ctx) && c.whole.T > 500) GTEST_SKIP() << "too long for the emulation, whose parts are shorter anyway";
  const AttentionOperands x(c.whole, in);
  std::vector<double> want, bound;
  attention_reference(c.whole, x, Arithmetic::kF32, want, bound);
  auto y = run(ctx, c, x, in);
  expect_close(y, want, 0, 1, bound);
  if (device == Device::kCpu) {
    const Threads threads(3);
    EXPECT_EQ(run(ctx, c, x, in), y);
  }
  if (emulated(ctx) && c.whole.T > 40) return;
  for (float& e : y) e = to_float(to_bf16(e));  // a bf16 result is those, rounded once
  EXPECT_EQ(run(ctx, c, x, in, DType::kBF16), y);
}

// Exact, but for an inverse and a product: equal scores average small integers. One key too many or too few shows.
TEST_P(AttentionCached, EqualScoresAverage) {
  const AttentionCase& w = c.whole;
  if (emulated(ctx) && (w.T > 60 || in == DType::kBF16)) GTEST_SKIP() << "long for the emulation";
  AttentionOperands x(w, in);
  std::fill(x.q.begin(), x.q.end(), 0.0f);
  x.v = integers(int64_t(x.v.size()), 3, -8, 8);
  std::vector<double> want(x.q.size());
  for (int64_t b = 0; b < w.B; ++b)
    for (int64_t h = 0; h < w.heads; ++h)
      for (int64_t e = 0; e < w.size; ++e) {
        const float* v = &x.v[(b * w.kv_heads + h / (w.heads / w.kv_heads)) * w.T * w.size + e];
        double sum = 0;
        for (int64_t i = 0; i < w.T; ++i) {
          sum += v[i * w.size];
          const bool full = w.options.window && i >= w.options.window;
          if (full) sum -= v[(i - w.options.window) * w.size];
          want[((b * w.T + i) * w.heads + h) * w.size + e] = sum / double(full ? w.options.window : i + 1);
        }
      }
  expect_close(run(ctx, c, x, in), want, 2 * 0x1p-24 + 0x1p-40);
}

// attention() itself, on the same numbers: within both bounds.
TEST_P(AttentionCached, AgreesWithTheOpWithoutACache) {
  const AttentionCase& w = c.whole;
  if (ctx.device() == Device::kCuda && (in == DType::kBF16 || emulated(ctx)))
    GTEST_SKIP() << "tensor cores round, and both have the reference";
  const AttentionOperands x(w, in);
  Guarded q(ctx, in, {w.B, w.heads, w.T, w.size}, x.q), k(ctx, in, {w.B, w.kv_heads, w.T, w.size}, x.k),
      v(ctx, in, {w.B, w.kv_heads, w.T, w.size}, x.v), out(ctx, DType::kF32, {w.B * w.T, w.heads * w.size});
  attention(ctx, out, q, k, v, w.options);
  std::vector<double> want, bound;
  attention_reference(w, x, Arithmetic::kF32, want, bound);
  expect_close(run(ctx, c, x, in), out.read(), 0, 2, bound);
}

struct CachedOp : OnDevice {};
ON_DEVICES(CachedOp);

TEST_P(CachedOp, NanReachesItsReaders) {
  AttentionCase w{"", 1, 1, 1, 12, 16, {.scale = 0.25f, .softcap = 50, .window = 4}};
  AttentionOperands x(w);
  x.q[7 * w.size] = std::nanf(""), x.k[2 * w.size + 3] = std::nanf("");
  const auto y = run(ctx, {w, one_by_one(1, 12), 4}, x, DType::kF32);
  for (int64_t i = 0; i < w.T; ++i) EXPECT_EQ(std::isnan(y[i * w.size]), i == 7 || (2 <= i && i < 6)) << i;
}

TEST_P(CachedOp, RefusesWhatDoesNotFit) {
  constexpr DType f32 = DType::kF32;
  const Guarded q(ctx, f32, {1, 4, 3, 8}), k(ctx, f32, {1, 2, 3, 8}), ring(ctx, f32, {1, 2, 5, 8}),
      out(ctx, f32, {3, 32}), two = start_at(ctx, 2), seven = start_at(ctx, 7);
  const Tensor start = as_i32(two);
  const AttentionOptions o{.scale = 1, .window = 4};
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, ring, two, o), Error);
  EXPECT_THROW(attention_cached(ctx, Guarded(ctx, f32, {3, 8}), q, k, k, ring, ring, start, o), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, Guarded(ctx, f32, {1, 2, 5, 6}), ring, start, o), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, Guarded(ctx, f32, {1, 2, 6, 8}), start, o), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, Guarded(ctx, DType::kBF16, {1, 2, 5, 8}), start, o), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, Guarded(ctx, f32, {1, 3, 3, 8}), k, ring, ring, start, o), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, ring, start, {.scale = 0}), Error);
  EXPECT_THROW(append_cached(ctx, ring, ring, k, Guarded(ctx, f32, {1, 2, 4, 8}), start), Error);
  EXPECT_THROW(append_cached(ctx, ring, ring, k, k, ring), Error);
  if (on_cuda()) return;  // start lies on the device
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, ring, as_i32(seven), {.scale = 1, .window = 7}), Error);
  EXPECT_THROW(attention_cached(ctx, out, q, k, k, ring, ring, as_i32(seven), {.scale = 1}), Error);
}

}  // namespace
}  // namespace gsae::test
