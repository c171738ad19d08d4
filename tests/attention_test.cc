#include "kernels/attention.h"

#include <omp.h>

#include <tuple>

#include "tests/attention_reference.h"

namespace gsae::test {
namespace {

using Case = AttentionCase;
using Operands = AttentionOperands;

std::vector<float> run(Context& ctx, const Case& c, const Operands& x, DType in, DType out_type = DType::kF32) {
  Guarded q(ctx, in, {c.B, c.heads, c.T, c.size}, x.q), k(ctx, in, {c.B, c.kv_heads, c.T, c.size}, x.k),
      v(ctx, in, {c.B, c.kv_heads, c.T, c.size}, x.v), out(ctx, out_type, {c.B * c.T, c.heads * c.size});
  attention(ctx, out, q, k, v, c.options);
  return out.read();
}

using Parameters = std::tuple<Device, DType, Case>;  // DType: of q, k and v

struct Attention : testing::TestWithParam<Parameters> {
  void SetUp() override { require(device); }
  Arithmetic arithmetic() const {
    return device == Device::kCuda && in == DType::kBF16 ? Arithmetic::kTensorCores : Arithmetic::kF32;
  }

  Device device = std::get<0>(GetParam());
  DType in = std::get<1>(GetParam());
  const Case& c = std::get<2>(GetParam());
  Context ctx{available(device) ? device : Device::kCpu};
};

TEST_P(Attention, MatchesReference) {
  const Operands x(c, in);
  std::vector<double> want, bound;
  attention_reference(c, x, arithmetic(), want, bound);
  auto y = run(ctx, c, x, in);
  expect_close(y, want, 0, 1, bound);
  // A second run gives the same bits, and a bf16 result is those, rounded once.
  for (float& e : y) e = to_float(to_bf16(e));
  EXPECT_EQ(run(ctx, c, x, in, DType::kBF16), y);
}

// Without queries all scores are 0, all weights 1, and all sums of small integers exact: the result is the mean of what
// the mask lets through, but for the roundings of an inverse and a product. One key too many or too few shows.
TEST_P(Attention, EqualScoresAverage) {
  Operands x(c, in);
  std::fill(x.q.begin(), x.q.end(), 0.0f);
  x.v = integers(int64_t(x.v.size()), 3, -8, 8);
  std::vector<double> want(x.q.size());
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.heads; ++h)
      for (int64_t e = 0; e < c.size; ++e) {
        const float* v = &x.v[(b * c.kv_heads + h / (c.heads / c.kv_heads)) * c.T * c.size + e];
        double sum = 0;
        for (int64_t i = 0; i < c.T; ++i) {
          sum += v[i * c.size];
          const bool full = c.options.window && i >= c.options.window;
          if (full) sum -= v[(i - c.options.window) * c.size];
          want[((b * c.T + i) * c.heads + h) * c.size + e] = sum / double(full ? c.options.window : i + 1);
        }
      }
  expect_close(run(ctx, c, x, in), want, 2 * 0x1p-24 + 0x1p-40);
}

// Head sizes of Gemma 2 and odd ones; one to four query heads to a key head; lengths of one, one vector, a tile of
// queries or keys, one more, several tiles and a ragged end; windows of one, below a vector, across tiles, and beyond
// T; scores far beyond the cap and beyond the range of exp. A warp asks of each tile whether it needs a mask, and
// whether it needs the tile: the windows of 31, 34, 63 and 66 are those where one key more or less decides.
const std::vector<Case> kCases{
    {"one_token", 2, 2, 1, 1, 16, {.scale = 0.25f}},
    {"one_token_window_one", 1, 1, 1, 1, 8, {.scale = 0.5f, .softcap = 50, .window = 1}},
    {"one_vector", 1, 4, 2, 16, 32, {.scale = 0.2f, .softcap = 50}},
    {"one_more", 1, 4, 2, 17, 32, {.scale = 0.2f}},
    {"odd_size", 2, 3, 1, 45, 24, {.scale = 0.2f, .softcap = 5, .window = 7}},
    {"size_of_nothing_whole", 1, 2, 2, 37, 5, {.scale = 1, .softcap = 2}},
    {"size_of_nothing_whole_above_64", 1, 2, 1, 34, 67, {.scale = 0.3f, .window = 30}},
    {"size_of_nothing_whole_above_128", 1, 2, 1, 34, 133, {.scale = 0.1f, .softcap = 50, .window = 30}},
    {"demo", 2, 2, 1, 130, 64, {.scale = 0.125f, .softcap = 50}, 3},
    {"demo_sliding", 1, 4, 2, 200, 64, {.scale = 0.125f, .softcap = 50, .window = 64}, 3},
    {"one_tile", 1, 4, 1, 64, 64, {.scale = 0.3f, .softcap = 20}, 2},
    {"one_more_than_a_tile", 1, 4, 1, 65, 64, {.scale = 0.3f, .softcap = 20, .window = 31}, 2},
    {"one_tile_of_one_head", 1, 1, 1, 128, 64, {.scale = 0.3f, .window = 65}, 2},
    {"one_more_of_one_head", 2, 3, 3, 129, 64, {.scale = 0.3f, .window = 66}, 2},
    {"tiles_ragged", 1, 2, 1, 331, 16, {.scale = 0.25f}, 2},
    {"window_across_tiles", 1, 1, 1, 331, 16, {.scale = 0.25f, .softcap = 50, .window = 270}, 2},
    {"window_one", 1, 3, 3, 50, 16, {.scale = 0.25f, .window = 1}},
    {"window_beyond_length", 1, 2, 1, 100, 128, {.scale = 0.1f, .window = 4096}, 2},
    {"like_27b", 2, 4, 2, 97, 128, {.scale = 0.0833f, .softcap = 50, .window = 31}, 2},
    {"wider_window", 1, 2, 1, 70, 128, {.scale = 0.1f, .window = 34}, 2},
    {"between_sizes", 1, 2, 1, 70, 200, {.scale = 0.07f, .softcap = 50, .window = 50}, 2},
    {"like_2b", 1, 4, 2, 100, 256, {.scale = 0.0625f, .softcap = 50, .window = 63}, 2},
    {"wide_without_sharing", 1, 1, 1, 129, 256, {.scale = 0.0625f, .window = 66}, 2},
    {"beyond_the_cap", 1, 2, 1, 90, 64, {.scale = 1, .softcap = 50}, 6},
    {"beyond_exp", 1, 2, 1, 200, 64, {.scale = 1, .window = 180}, 6},
};
std::vector<Parameters> parameters() {
  std::vector<Parameters> all;
  for (const Device device : devices())
    for (const DType t : {DType::kF32, DType::kBF16})
      for (const Case& c : kCases)
        if (device == Device::kCpu || t == DType::kF32 || c.size % 8 == 0) all.push_back({device, t, c});
  return all;
}
std::string name_of(const testing::TestParamInfo<Parameters>& p) {
  const auto& [device, t, c] = p.param;
  return std::string(name(device)) + "_" + name(t) + "_" + c.name;
}
INSTANTIATE_TEST_SUITE_P(Shapes, Attention, testing::ValuesIn(parameters()), name_of);

struct AttentionCpu : testing::TestWithParam<Case> {
  Context ctx{Device::kCpu};
};
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionCpu, testing::ValuesIn(kCases),
                         [](const auto& p) { return std::string(p.param.name); });

TEST_P(AttentionCpu, ThreadsDoNotMatter) {
  const Case& c = GetParam();
  const Operands x(c);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = run(ctx, c, x, DType::kF32);
  omp_set_num_threads(3);
  const auto three = run(ctx, c, x, DType::kF32);
  omp_set_num_threads(threads);
  EXPECT_EQ(one, three);
}

// bf16 operands are widened, which is exact, and then treated as f32 ones are.
TEST_P(AttentionCpu, WideningChangesNothing) {
  const Case& c = GetParam();
  const Operands x(c, DType::kBF16);
  EXPECT_EQ(run(ctx, c, x, DType::kBF16), run(ctx, c, x, DType::kF32));
}

struct AttentionOp : OnDevice {
  static constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
};
ON_DEVICES(AttentionOp);

// By hand: equal scores average what is seen, with and without a window.
TEST_P(AttentionOp, EqualScoresAverage) {
  for (const DType t : kTypes) {
    const auto in_first = [](std::initializer_list<float> values) {  // of 8 columns
      std::vector<float> v;
      for (const float x : values) v.push_back(x), v.resize(v.size() + 7);
      return v;
    };
    Guarded q(ctx, t, {1, 1, 4, 8}, in_first({0, 0, 0, 0})), k(ctx, t, {1, 1, 4, 8}, in_first({1, 2, 3, 4})),
        v(ctx, t, {1, 1, 4, 8}, in_first({4, 8, 12, 0})), out(ctx, DType::kF32, {4, 8});
    attention(ctx, out, q, k, v, {.scale = 1});
    EXPECT_EQ(out.read(), in_first({4, 6, 8, 6}));
    attention(ctx, out, q, k, v, {.scale = 1, .window = 2});
    EXPECT_EQ(out.read(), in_first({4, 6, 10, 6}));
  }
}

// What comes later, and what has left the window, must not move a bit of a result.
TEST_P(AttentionOp, UnseenTokensAreNotTouched) {
  for (const DType t : kTypes) {
    const Case c{"", 1, 2, 1, 170, 16, {.scale = 0.25f, .softcap = 50, .window = 20}};
    Operands x(c, t);
    const auto clean = run(ctx, c, x, t);
    const int64_t changed = 40, width = c.heads * c.size;
    for (int64_t e = 0; e < c.size; ++e) x.k[changed * c.size + e] = 1e4f, x.v[changed * c.size + e] = -1e4f;
    const auto dirty = run(ctx, c, x, t);
    for (int64_t i = 0; i < c.T; ++i) {
      const bool sees = i >= changed && i < changed + c.options.window;
      EXPECT_EQ(sees, !std::equal(&clean[i * width], &clean[i * width] + width, &dirty[i * width])) << "position " << i;
    }
  }
}

// Tiles of keys that no query of a tile sees are not read at all: NaN there would come through a weight of 0.
TEST_P(AttentionOp, UnseenTilesAreNotRead) {
  for (const DType t : kTypes) {
    const Case c{"", 1, 2, 1, 400, 16, {.scale = 0.25f, .window = 20}};
    Operands x(c, t);
    const auto clean = run(ctx, c, x, t);
    const auto end = clean.begin() + 256 * c.heads * c.size, begin = clean.begin() + 192 * c.heads * c.size;
    for (int64_t j = 0; j < c.T; ++j)
      for (int64_t e = 0; e < c.size && (j < 64 || j >= 256); ++e)
        x.k[j * c.size + e] = x.v[j * c.size + e] = std::numeric_limits<float>::quiet_NaN();
    const auto dirty = run(ctx, c, x, t);
    EXPECT_TRUE(std::equal(begin, end, dirty.begin() + (begin - clean.begin())));
  }
}

TEST_P(AttentionOp, NanReachesItsReaders) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType t : kTypes)
    for (const float cap : {0.0f, 50.0f}) {
      const Case c{"", 1, 1, 1, 40, 16, {.scale = 0.25f, .softcap = cap}};
      Operands x(c, t);
      x.q[7 * c.size] = nan, x.k[31 * c.size + 3] = nan;
      const auto y = run(ctx, c, x, t);
      for (int64_t i = 0; i < c.T; ++i)
        EXPECT_EQ(std::isnan(y[i * c.size]), i == 7 || i >= 31) << "position " << i << ", cap " << cap;
    }
}

TEST_P(AttentionOp, RefusesWhatDoesNotFit) {
  constexpr DType f32 = DType::kF32, bf16 = DType::kBF16;
  Guarded q(ctx, f32, {1, 4, 3, 8}), k(ctx, f32, {1, 2, 3, 8}), out(ctx, f32, {3, 32});
  EXPECT_THROW(attention(ctx, out, q, k, Guarded(ctx, f32, {1, 2, 4, 8}), {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, Guarded(ctx, f32, {3, 8}), q, k, k, {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, Guarded(ctx, f32, {1, 3, 3, 8}), k, {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, Guarded(ctx, bf16, {1, 2, 3, 8}), k, {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, Guarded(ctx, bf16, {1, 2, 3, 8}), {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, k, {.scale = 1, .window = -1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, k, {.scale = 1, .softcap = -1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, k, {.scale = 0}), Error);
  Guarded wide(ctx, f32, {1, 1, 1, kMaxHeadSize + 8}), wide_out(ctx, f32, {1, kMaxHeadSize + 8});
  EXPECT_THROW(attention(ctx, wide_out, wide, wide, wide, {.scale = 1}), Error);
  if (!on_cuda()) return;
  Guarded odd(ctx, bf16, {1, 1, 1, 12}), odd_out(ctx, f32, {1, 12});
  EXPECT_THROW(attention(ctx, odd_out, odd, odd, odd, {.scale = 1}), Error);
}

}  // namespace
}  // namespace gsae::test
