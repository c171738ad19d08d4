#include "kernels/statistics.h"

#include <algorithm>

#include "tests/harness.h"
#include "tests/threads.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct AddSum : OnDevice {};
ON_DEVICES(AddSum);
struct AddMoments : OnDevice {};
ON_DEVICES(AddMoments);
struct UpdateIdle : OnDevice {};
ON_DEVICES(UpdateIdle);
struct SummariseLatents : OnDevice {};
ON_DEVICES(SummariseLatents);
struct Statistics : OnDevice {};
ON_DEVICES(Statistics);

// In f64 nothing here is lost; in f32 the ones would be.
TEST_P(AddSum, SumsInDoubles) {
  Guarded total = on_device<double>(ctx, {3});
  add_sum(ctx, total, Guarded(ctx, DType::kF32, {5}, {1e9f, 1, 1, -1e9f, 0.5f}));
  EXPECT_EQ(download<double>(ctx, total)[0], 5.5);
  add_sum(ctx, total, Guarded(ctx, DType::kF32, {1}, {std::nanf("")}));
  EXPECT_TRUE(std::isnan(download<double>(ctx, total)[0]));
}

// Exact: multiples of 1/8 below 2^10, of which f64 holds any sum. Sizes around a warp, a block and several passes.
TEST_P(AddSum, TakesEachElementOnce) {
  for (const int64_t n : {1, 31, 33, 255, 1023, 1025, 4099}) {
    auto x = integers(n, uint32_t(n), -8000, 8000);
    double want = -3;
    for (float& e : x) e *= 0.125f, want += e;
    Guarded total = on_device<double>(ctx, {-3});
    add_sum(ctx, total, Guarded(ctx, DType::kF32, {n}, x));
    EXPECT_EQ(download<double>(ctx, total)[0], want) << n;
  }
}

struct Shape {
  int64_t n, d;
};
// Around the CPU's stripes of 64 columns; cuda's of 512 (128 where d is odd), and its chunks of 16 rows.
const Shape kShapes[] = {{1, 1}, {3, 63}, {7, 64}, {40, 193}, {65, 132}, {300, 5}, {16, 1024}, {17, 516}, {33, 129}};

// Numbers with 24-bit mantissas: products are exact in f64, sums of n round n times at most.
TEST_P(AddMoments, MatchesDoubles) {
  for (const auto [n, d] : kShapes) {
    SCOPED_TRACE(n);
    const auto x = uniform(n * d, 1, DType::kF32, -9, 9);
    std::vector<long double> columns(d, 2.0L), absolute(d, 2.0L);
    long double all = 7;
    for (int64_t i = 0; i < n * d; ++i) {
      columns[i % d] += x[i];
      absolute[i % d] += std::fabs(x[i]);
      all += static_cast<long double>(x[i]) * x[i];
    }
    std::vector<double> first;
    for (const int count : {1, 2, 3}) {
      const Threads threads(count);
      Guarded sum = on_device(ctx, std::vector<double>(d, 2.0)), square = on_device<double>(ctx, {7});
      add_moments(ctx, sum, square, Guarded(ctx, DType::kF32, {n, d}, x));
      auto got = download<double>(ctx, sum);
      got.push_back(download<double>(ctx, square)[0]);
      for (int64_t c = 0; c < d; ++c)
        EXPECT_NEAR(got[c], double(columns[c]), double(n + 1) * 0x1p-53 * double(absolute[c]));
      EXPECT_NEAR(got[d], double(all), double(n * d + 1) * 0x1p-53 * double(all));
      if (count == 1) first = got;
      else EXPECT_EQ(got, first) << count << " threads";
    }
  }
}

// Squares of 1e4 + 1/1024 differ from those of 1e4 in the 9th digit: f32 would say the variance is 0.
TEST_P(AddMoments, VarianceFarFromTheOrigin) {
  Guarded sum = on_device<double>(ctx, {0}), square = on_device<double>(ctx, {0});
  add_moments(ctx, sum, square, Guarded(ctx, DType::kF32, {2, 1}, {1e4f - 0x1p-10f, 1e4f + 0x1p-10f}));
  const double s = download<double>(ctx, sum)[0];
  EXPECT_NEAR(download<double>(ctx, square)[0] / 2 - s / 2 * s / 2, 0x1p-20, 1e-7);
}

TEST_P(AddMoments, NanPropagates) {
  const int64_t n = 70, d = 130;
  std::vector<float> x(n * d, 1.0f);
  x[66 * d + 129] = std::nanf("");
  Guarded sum = on_device(ctx, std::vector<double>(d)), square = on_device<double>(ctx, {0});
  add_moments(ctx, sum, square, Guarded(ctx, DType::kF32, {n, d}, x));
  const auto got = download<double>(ctx, sum);
  for (int64_t c = 0; c < d; ++c) EXPECT_EQ(std::isnan(got[c]), c == 129) << c;
  EXPECT_TRUE(std::isnan(download<double>(ctx, square)[0]));
}

// By hand: latent 0 fires (3 rows of 10), 1 stays silent, 2 fires for the first time.
TEST_P(UpdateIdle, WorkedExample) {
  Guarded idle = on_device<int64_t>(ctx, {0, 20, 30}), total = on_device<int64_t>(ctx, {5, 0, 0});
  Guarded fired = on_device<int32_t>(ctx, {3, 0, 1});
  update_idle(ctx, idle, total, fired, 10);
  EXPECT_EQ(download<int64_t>(ctx, idle), (std::vector<int64_t>{0, 30, 0}));
  EXPECT_EQ(download<int64_t>(ctx, total), (std::vector<int64_t>{8, 0, 1}));
  EXPECT_EQ(download<int32_t>(ctx, fired), (std::vector<int32_t>{0, 0, 0}));
}

TEST_P(UpdateIdle, CountsBeyond32Bits) {
  const int64_t many = int64_t{1} << 40;
  Guarded idle = on_device<int64_t>(ctx, {many, many}), total = on_device<int64_t>(ctx, {many, many});
  Guarded fired = on_device<int32_t>(ctx, {0, INT32_MAX});
  update_idle(ctx, idle, total, fired, int64_t{1} << 33);
  EXPECT_EQ(download<int64_t>(ctx, idle), (std::vector<int64_t>{many + (int64_t{1} << 33), 0}));
  EXPECT_EQ(download<int64_t>(ctx, total), (std::vector<int64_t>{many, many + INT32_MAX}));
}

TEST_P(UpdateIdle, EveryLatent) {
  for (const int64_t latents : {1, 255, 256, 257, 1000}) {
    std::vector<int64_t> idle(latents), total(latents);
    std::vector<int32_t> fired(latents);
    for (int64_t i = 0; i < latents; ++i) idle[i] = i, total[i] = 3 * i, fired[i] = i % 3 == 0 ? int32_t(i % 7) : 0;
    Guarded idles = on_device(ctx, idle), totals = on_device(ctx, total), counts = on_device(ctx, fired);
    update_idle(ctx, idles, totals, counts, 5);
    for (int64_t i = 0; i < latents; ++i) idle[i] = fired[i] ? 0 : i + 5, total[i] += fired[i], fired[i] = 0;
    EXPECT_EQ(download<int64_t>(ctx, idles), idle);
    EXPECT_EQ(download<int64_t>(ctx, totals), total);
    EXPECT_EQ(download<int32_t>(ctx, counts), fired);
  }
}

// By hand: silent for 10 rows is dead when the window is 10.
TEST_P(SummariseLatents, WorkedExample) {
  Guarded out(ctx, DType::kF64, {kLatentStatistics}), idle = on_device<int64_t>(ctx, {9, 10, int64_t{1} << 40, 0});
  summarise_latents(ctx, out, idle, Guarded(ctx, DType::kF32, {4}, {0.5f, 0.25f, 2, 0.25f}), 10);
  EXPECT_EQ(download<double>(ctx, out), (std::vector<double>{2, 0.75, 0.25, 2}));
}

// Exact: multiples of 2^-10 below 1. One dead latent, one lowest and one highest threshold, wherever they are.
TEST_P(SummariseLatents, LooksAtEveryLatent) {
  for (const int64_t latents : {1, 2, 33, 1024, 1025, 3001})
    for (const int64_t at : {int64_t{0}, latents / 2, latents - 1}) {
      auto theta = integers(latents, 7, 1, 1000);
      double sum = 0;
      for (float& t : theta) t *= 0x1p-10f;
      theta[at] = 0;
      theta[latents - 1 - at] += 1;
      for (const float t : theta) sum += t;
      std::vector<int64_t> idle(latents, 6);
      idle[at] = 7;
      Guarded out(ctx, DType::kF64, {kLatentStatistics});
      summarise_latents(ctx, out, on_device(ctx, idle), Guarded(ctx, DType::kF32, {latents}, theta), 7);
      const auto [lowest, highest] = std::minmax_element(theta.begin(), theta.end());
      EXPECT_EQ(download<double>(ctx, out), (std::vector<double>{1, sum / double(latents), *lowest, *highest}))
          << latents << " " << at;
    }
}

// Wherever it is, it is not lost, and does not hide the others.
TEST_P(SummariseLatents, NanShowsInTheMean) {
  const int64_t latents = 300;
  for (const int64_t at : {0, 1, 150, 299}) {
    std::vector<float> theta(latents, 0.5f);
    theta[at] = std::nanf("");
    theta[at == 7 ? 8 : 7] = 0.25f;
    Guarded out(ctx, DType::kF64, {kLatentStatistics});
    summarise_latents(ctx, out, on_device(ctx, std::vector<int64_t>(latents)),
                      Guarded(ctx, DType::kF32, {latents}, theta), 1);
    const auto got = download<double>(ctx, out);
    EXPECT_EQ(got[kDeadLatents], 0);
    EXPECT_TRUE(std::isnan(got[kMeanThreshold]));
    EXPECT_EQ(got[kLowestThreshold], 0.25);
    EXPECT_EQ(got[kHighestThreshold], 0.5);
  }
}

TEST_P(Statistics, RefusesWrongOperands) {
  Guarded d1(ctx, DType::kF64, {1}), d2(ctx, DType::kF64, {2}), d3(ctx, DType::kF64, {3}), d4(ctx, DType::kF64, {4});
  Guarded f1(ctx, DType::kF32, {1}), f4(ctx, DType::kF32, {4});
  Guarded l2(ctx, DType::kI64, {2}), l3(ctx, DType::kI64, {3}), i3(ctx, DType::kI32, {3});
  Guarded x(ctx, DType::kF32, {2, 3}), v(ctx, DType::kF32, {3}), v16(ctx, DType::kBF16, {3});
  EXPECT_THROW(add_sum(ctx, f1, v), Error);
  EXPECT_THROW(add_sum(ctx, d2, v), Error);
  EXPECT_THROW(add_sum(ctx, d1, x), Error);
  EXPECT_THROW(add_sum(ctx, d1, v16), Error);
  EXPECT_THROW(add_moments(ctx, d2, d1, x), Error);
  EXPECT_THROW(add_moments(ctx, v, d1, x), Error);
  EXPECT_THROW(add_moments(ctx, d3, d3, x), Error);
  EXPECT_THROW(update_idle(ctx, i3, l3, i3, 1), Error);
  EXPECT_THROW(update_idle(ctx, l3, l2, i3, 1), Error);
  EXPECT_THROW(update_idle(ctx, l3, l3, v, 1), Error);
  EXPECT_NO_THROW(summarise_latents(ctx, d4, l3, v, 1));
  EXPECT_THROW(summarise_latents(ctx, f4, l3, v, 1), Error);
  EXPECT_THROW(summarise_latents(ctx, d3, l3, v, 1), Error);
  EXPECT_THROW(summarise_latents(ctx, d4, i3, v, 1), Error);
  EXPECT_THROW(summarise_latents(ctx, d4, l2, v, 1), Error);
  EXPECT_THROW(summarise_latents(ctx, d4, l3, v16, 1), Error);
  Tensor no_idle = l3, no_theta = v;
  no_idle.dim[0] = no_theta.dim[0] = 0;
  EXPECT_THROW(summarise_latents(ctx, d4, no_idle, no_theta, 1), Error);  // their mean is nothing
}

}  // namespace
}  // namespace gsae::test
