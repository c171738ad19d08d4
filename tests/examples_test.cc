#include "kernels/examples.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "kernels/philox.h"
#include "tests/harness.h"
#include "tests/threads.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct ExamplesOf : OnDevice {};
ON_DEVICES(ExamplesOf);

constexpr int kTop = Examples::kTop, kBins = Examples::kBins, kBands = Examples::kBands, kPer = Examples::kPerBand;
constexpr uint64_t kSeed = 11;

// Everything that is remembered, on the host.
struct Remembered {
  std::vector<int32_t> count, scale, histogram, top_row, band_row, faults;
  std::vector<double> sum;
  std::vector<float> top_value, band_value;  // 0 where there is none
  bool operator==(const Remembered&) const = default;
};

Remembered download_all(Context& ctx, const Examples& e) {
  Remembered r{
      download<int32_t>(ctx, e.count),   download<int32_t>(ctx, e.scale),    download<int32_t>(ctx, e.histogram),
      download<int32_t>(ctx, e.top_row), download<int32_t>(ctx, e.band_row), download<int32_t>(ctx, e.faults),
      download<double>(ctx, e.sum),      download<float>(ctx, e.top_value),  download<float>(ctx, e.band_value)};
  for (size_t i = 0; i < r.top_row.size(); ++i)
    if (r.top_row[i] < 0) r.top_value[i] = 0;
  for (size_t i = 0; i < r.band_row.size(); ++i)
    if (r.band_row[i] < 0) r.band_value[i] = 0;
  return r;
}

struct Hit {
  float value;
  int32_t row;
};

// From the definition: all activations of a latent at once, sorted.
Remembered reference(const std::vector<float>& f, const std::vector<int32_t>& rows, int64_t F, int64_t T) {
  Remembered want;
  want.faults = {0};
  for (int64_t i = 0; i < F; ++i) {
    std::vector<Hit> hits;
    double sum = 0, largest = 0;
    for (size_t r = 0; r < rows.size(); ++r)
      if (const float v = f[r * F + i]; v > 0) hits.push_back({v, rows[r]}), sum += v, largest = std::fmax(largest, v);
    int scale = Examples::kNoScale;
    if (!hits.empty()) {
      std::frexp(largest, &scale);  // largest = m 2^scale, m in [1/2, 1)
      scale = std::max(scale, Examples::kLeastScale);
    }
    const double unit = std::ldexp(1.0, scale);
    std::vector<int32_t> histogram(kBins), top_row(kTop, -1), band_row(kBands * kPer, -1);
    std::vector<float> top_value(kTop), band_value(kBands * kPer);
    for (const Hit& h : hits) ++histogram[size_t(std::floor(h.value / unit * kBins))];

    std::map<int64_t, Hit> best;  // of each context
    for (const Hit& h : hits)
      if (const auto [at, is_new] = best.try_emplace(h.row / T, h); !is_new && h.value > at->second.value)
        at->second = h;
    std::vector<Hit> top;
    for (const auto& [context, h] : best) top.push_back(h);
    std::sort(top.begin(), top.end(),
              [](const Hit& a, const Hit& b) { return a.value != b.value ? a.value > b.value : a.row < b.row; });
    for (size_t k = 0; k < top.size() && k < kTop; ++k) top_value[k] = top[k].value, top_row[k] = top[k].row;

    const Random random(kSeed, Random::kSampleExamples, uint64_t(i));
    for (int band = 0; band < kBands; ++band) {
      std::vector<std::pair<uint32_t, Hit>> of_band;
      for (const Hit& h : hits)
        if (int(std::floor(h.value / unit * kBands)) == band) of_band.push_back({random.words(uint64_t(h.row))[0], h});
      std::sort(of_band.begin(), of_band.end(), [](const auto& a, const auto& b) {
        return std::pair(a.first, a.second.row) < std::pair(b.first, b.second.row);
      });
      for (size_t k = 0; k < of_band.size() && k < kPer; ++k)
        band_value[band * kPer + k] = of_band[k].second.value, band_row[band * kPer + k] = of_band[k].second.row;
    }
    want.count.push_back(int32_t(hits.size()));
    want.scale.push_back(scale);
    want.sum.push_back(sum);
    want.histogram.insert(want.histogram.end(), histogram.begin(), histogram.end());
    want.top_row.insert(want.top_row.end(), top_row.begin(), top_row.end());
    want.top_value.insert(want.top_value.end(), top_value.begin(), top_value.end());
    want.band_row.insert(want.band_row.end(), band_row.begin(), band_row.end());
    want.band_value.insert(want.band_value.end(), band_value.begin(), band_value.end());
  }
  return want;
}

// What the op finds in tiles of so many rows.
Remembered run(Context& ctx, const std::vector<float>& f, const std::vector<int32_t>& rows, int64_t F, int64_t T,
               int64_t tile) {
  Arena plan;
  Examples shapes(plan, F);
  std::vector<Guarded> memory;  // each part between canaries
  memory.reserve(16);
  Examples e = shapes;
  for (Tensor* t : {&e.count, &e.sum, &e.scale, &e.histogram, &e.top_value, &e.top_row, &e.band_value, &e.band_row,
                    &e.band_key, &e.faults}) {
    memory.emplace_back(ctx, t->dtype, std::initializer_list<int64_t>{t->size()});
    t->ptr = Tensor(memory.back()).ptr;
    t->device = ctx.device();
  }
  clear_examples(ctx, e);
  const auto n = static_cast<int64_t>(rows.size());
  for (int64_t begin = 0; begin < n; begin += tile) {
    const int64_t end = std::min(n, begin + tile);
    Guarded values(ctx, DType::kF32, {end - begin, F}, {f.begin() + begin * F, f.begin() + end * F});
    Guarded numbers = on_device(ctx, std::vector<int32_t>(rows.begin() + begin, rows.begin() + end));
    add_examples(ctx, e, values, numbers, T, kSeed);
    ctx.synchronize();
  }
  const Remembered got = download_all(ctx, e);
  for (Guarded& part : memory)
    if (Tensor(part).dtype == DType::kF32) part.read();  // its canaries
  return got;
}

void expect_equal(const Remembered& got, const Remembered& want) {
  EXPECT_EQ(got.count, want.count);
  EXPECT_EQ(got.sum, want.sum);
  EXPECT_EQ(got.scale, want.scale);
  EXPECT_EQ(got.histogram, want.histogram);
  EXPECT_EQ(got.top_row, want.top_row);
  EXPECT_EQ(got.top_value, want.top_value);
  EXPECT_EQ(got.band_row, want.band_row);
  EXPECT_EQ(got.band_value, want.band_value);
  EXPECT_EQ(got.faults, want.faults);
}

// Row numbers with gaps, as special tokens leave them.
std::vector<int32_t> row_numbers(int64_t n, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> rows;
  for (int32_t row = int32_t(rng() % 3); int64_t(rows.size()) < n; row += 1 + int32_t(rng() % 2)) rows.push_back(row);
  return rows;
}

// Latents of several kinds: dead, dense, rare, of a few equal values (ties), growing (the scale follows), over 2^50.
std::vector<float> activations(int64_t n, int64_t F, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<float> f(size_t(n * F));
  for (int64_t r = 0; r < n; ++r)
    for (int64_t i = 0; i < F; ++i) {
      const float u = float((rng() >> 8) + 1) * 0x1p-24f;
      float& v = f[size_t(r * F + i)];
      switch (i % 6) {
        case 1: v = u * 3; break;
        case 2: v = rng() % 50 == 0 ? u : 0; break;
        case 3: v = rng() % 3 == 0 ? float(1 + rng() % 3) : 0; break;
        case 4: v = rng() % 2 == 0 ? u * float(r + 1) * 0.01f : 0; break;
        case 5: v = std::ldexp(u, int(rng() % 50) - 25); break;
      }
    }
  return f;
}

TEST_P(ExamplesOf, MatchTheDefinition) {
  const int64_t n = emulated(ctx) ? 300 : 900;
  for (const int64_t F : {1, 7, 65, 130})
    for (const int64_t T : {1, 8, 50}) {
      SCOPED_TRACE(F * 1000 + T);
      const auto f = activations(n, F, uint32_t(F + T));
      const auto rows = row_numbers(n, 5);
      const Remembered want = reference(f, rows, F, T);
      expect_equal(run(ctx, f, rows, F, T, n), want);
    }
}

// Not by how the rows come, nor by how many threads take them.
TEST_P(ExamplesOf, DoNotDependOnTheTiles) {
  const int64_t n = 230, F = 70, T = 16;
  const auto f = activations(n, F, 3);
  const auto rows = row_numbers(n, 6);
  const Remembered want = reference(f, rows, F, T);
  for (const int64_t tile : {1, 7, 8, 9, 64, 229}) {
    SCOPED_TRACE(tile);
    const Threads threads(int(1 + tile % 3));
    expect_equal(run(ctx, f, rows, F, T, tile), want);
  }
}

// By hand: contexts of 4 rows; equal values of two contexts, of one, and one that is replaced within its context.
TEST_P(ExamplesOf, TiesGoToTheEarlierRow) {
  const std::vector<float> f{2, 0, 2, 1, /**/ 1, 3, 3, 0, /**/ 2, 0, 0, 0, /**/ 0, 0, 0, 0, /**/ 0.5f};
  std::vector<int32_t> rows(f.size());
  std::iota(rows.begin(), rows.end(), 0);
  const Remembered got = run(ctx, f, rows, 1, 4, 5);
  EXPECT_EQ(std::vector<int32_t>(got.top_row.begin(), got.top_row.begin() + 5),
            (std::vector<int32_t>{5, 0, 8, 16, -1}));
  EXPECT_EQ(std::vector<float>(got.top_value.begin(), got.top_value.begin() + 4), (std::vector<float>{3, 2, 2, 0.5f}));
  EXPECT_EQ(got.count[0], 8);
  EXPECT_EQ(got.sum[0], 14.5);
  EXPECT_EQ(got.scale[0], 2);       // 3 < 4
  EXPECT_EQ(got.histogram[8], 1);   // 0.5 of 4
  EXPECT_EQ(got.histogram[16], 2);  // 1
  EXPECT_EQ(got.histogram[32], 3);  // 2
  EXPECT_EQ(got.histogram[48], 2);  // 3
}

// More contexts than there are places, all of one value: the first of them.
TEST_P(ExamplesOf, EqualContextsBeyondThePlaces) {
  std::vector<float> f(3 * kTop, 1.0f);
  std::vector<int32_t> rows(f.size());
  std::iota(rows.begin(), rows.end(), 0);
  const Remembered got = run(ctx, f, rows, 1, 1, 16);
  std::vector<int32_t> want(kTop);
  std::iota(want.begin(), want.end(), 0);
  EXPECT_EQ(got.top_row, want);
}

// The ends of what f32 holds, and their exact bins.
TEST_P(ExamplesOf, TakeEveryFiniteValue) {
  const float largest = std::numeric_limits<float>::max(), least = std::numeric_limits<float>::denorm_min();
  for (const std::vector<float>& f : {std::vector<float>{least, 0x1.8p-127f, 0x1p-126f, 0x1.fffffep-126f},
                                      {least, largest},
                                      {largest, least},
                                      {1, std::nextafter(1.0f, 0.0f)},
                                      {4, 4},
                                      {0x1p-120f, 1}}) {
    std::vector<int32_t> rows(f.size());
    std::iota(rows.begin(), rows.end(), 0);
    expect_equal(run(ctx, f, rows, 1, 1, 1), reference(f, rows, 1, 1));
  }
}

TEST_P(ExamplesOf, NanAndInfinityAreFaults) {
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    const Remembered got = run(ctx, {1, bad, 2}, {0, 1, 2}, 1, 1, 3);
    EXPECT_NE(got.faults[0], 0);
    EXPECT_EQ(got.count[0], 2);
    EXPECT_EQ(got.sum[0], 3);
  }
}

// Each of a band is as likely to be kept: of 400 equal activations, 5 stay; over 300 latents the mean of their rows is
// that of all within four standard errors.
TEST_P(ExamplesOf, BandsAreARandomChoice) {
  const int64_t n = 400, F = emulated(ctx) ? 60 : 300;
  std::vector<float> f(size_t(n * F), 1.0f);
  std::vector<int32_t> rows(size_t(n), 0);
  std::iota(rows.begin(), rows.end(), 0);
  const Remembered got = run(ctx, f, rows, F, 1, 100);
  double sum = 0, kept = 0;
  for (const int32_t row : got.band_row)
    if (row >= 0) sum += row, ++kept;
  EXPECT_EQ(kept, double(F) * kPer);
  EXPECT_NEAR(sum / kept, (double(n) - 1) / 2, 4 * double(n) / std::sqrt(12.0 * kept));
}

TEST_P(ExamplesOf, RefuseWrongOperands) {
  Arena plan;
  Examples e(plan, 3);
  Guarded f(ctx, DType::kF32, {2, 3}), narrow(ctx, DType::kF32, {2, 2}), bf16(ctx, DType::kBF16, {2, 3});
  Guarded rows(ctx, DType::kI32, {2}), three(ctx, DType::kI32, {3}), floats(ctx, DType::kF32, {2});
  EXPECT_THROW(add_examples(ctx, e, narrow, rows, 8, 0), Error);
  EXPECT_THROW(add_examples(ctx, e, bf16, rows, 8, 0), Error);
  EXPECT_THROW(add_examples(ctx, e, f, three, 8, 0), Error);
  EXPECT_THROW(add_examples(ctx, e, f, floats, 8, 0), Error);
  EXPECT_THROW(add_examples(ctx, e, f, rows, 0, 0), Error);
}

}  // namespace
}  // namespace gsae::test
