#include "kernels/statistics.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

// In f64 nothing here is lost; in f32 the ones would be.
TEST(AddSumCpu, SumsInDoubles) {
  Context ctx(Device::kCpu);
  double total = 3;
  add_sum(ctx, view(&total, {1}), Guarded(ctx, DType::kF32, {5}, {1e9f, 1, 1, -1e9f, 0.5f}));
  EXPECT_EQ(total, 5.5);
  add_sum(ctx, view(&total, {1}), Guarded(ctx, DType::kF32, {1}, {std::nanf("")}));
  EXPECT_TRUE(std::isnan(total));
}

// Numbers with 24-bit mantissas: products are exact in f64, sums of n round n times at most.
TEST(AddMomentsCpu, MatchesDoubles) {
  struct Shape {
    int64_t n, d;
  };
  for (const auto [n, d] : {Shape{1, 1}, Shape{3, 63}, Shape{7, 64}, Shape{40, 193}}) {
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
      Context ctx(Device::kCpu);
      std::vector<double> got(d + 1, 2.0);
      got[d] = 7;
      add_moments(ctx, view(got.data(), {d}), view(got.data() + d, {1}), Guarded(ctx, DType::kF32, {n, d}, x));
      for (int64_t c = 0; c < d; ++c)
        EXPECT_NEAR(got[c], double(columns[c]), double(n + 1) * 0x1p-53 * double(absolute[c]));
      EXPECT_NEAR(got[d], double(all), double(n * d + 1) * 0x1p-53 * double(all));
      if (count == 1) first = got;
      else EXPECT_EQ(got, first) << count << " threads";
    }
  }
}

// Squares of 1e4 + 1/1024 differ from those of 1e4 in the 9th digit: f32 would say the variance is 0.
TEST(AddMomentsCpu, VarianceFarFromTheOrigin) {
  Context ctx(Device::kCpu);
  double sum = 0, square = 0;
  add_moments(ctx, view(&sum, {1}), view(&square, {1}),
              Guarded(ctx, DType::kF32, {2, 1}, {1e4f - 0x1p-10f, 1e4f + 0x1p-10f}));
  EXPECT_NEAR(square / 2 - sum / 2 * sum / 2, 0x1p-20, 1e-7);
}

// By hand: latent 0 fires (3 rows of 10), 1 stays silent, 2 fires for the first time.
TEST(UpdateIdleCpu, WorkedExample) {
  Context ctx(Device::kCpu);
  std::vector<int64_t> idle{0, 20, 30}, total{5, 0, 0};
  std::vector<int32_t> fired{3, 0, 1};
  update_idle(ctx, view(idle.data(), {3}), view(total.data(), {3}), view(fired.data(), {3}), 10);
  EXPECT_EQ(idle, (std::vector<int64_t>{0, 30, 0}));
  EXPECT_EQ(total, (std::vector<int64_t>{8, 0, 1}));
  EXPECT_EQ(fired, (std::vector<int32_t>{0, 0, 0}));
}

TEST(UpdateIdleCpu, CountsBeyond32Bits) {
  Context ctx(Device::kCpu);
  const int64_t many = int64_t{1} << 40;
  std::vector<int64_t> idle{many, many}, total{many, many};
  std::vector<int32_t> fired{0, INT32_MAX};
  update_idle(ctx, view(idle.data(), {2}), view(total.data(), {2}), view(fired.data(), {2}), int64_t{1} << 33);
  EXPECT_EQ(idle, (std::vector<int64_t>{many + (int64_t{1} << 33), 0}));
  EXPECT_EQ(total, (std::vector<int64_t>{many, many + INT32_MAX}));
}

TEST(StatisticsCpu, RefusesWrongOperands) {
  Context ctx(Device::kCpu);
  std::vector<double> f64(3);
  std::vector<float> f32(3);
  std::vector<int64_t> i64(3);
  std::vector<int32_t> i32(3);
  Guarded x(ctx, DType::kF32, {2, 3}), v(ctx, DType::kF32, {3}), v16(ctx, DType::kBF16, {3});
  EXPECT_THROW(add_sum(ctx, view(f32.data(), {1}), v), Error);
  EXPECT_THROW(add_sum(ctx, view(f64.data(), {2}), v), Error);
  EXPECT_THROW(add_sum(ctx, view(f64.data(), {1}), x), Error);
  EXPECT_THROW(add_sum(ctx, view(f64.data(), {1}), v16), Error);
  EXPECT_THROW(add_moments(ctx, view(f64.data(), {2}), view(f64.data(), {1}), x), Error);
  EXPECT_THROW(add_moments(ctx, view(f32.data(), {3}), view(f64.data(), {1}), x), Error);
  EXPECT_THROW(add_moments(ctx, view(f64.data(), {3}), view(f64.data(), {3}), x), Error);
  EXPECT_THROW(update_idle(ctx, view(i32.data(), {3}), view(i64.data(), {3}), view(i32.data(), {3}), 1), Error);
  EXPECT_THROW(update_idle(ctx, view(i64.data(), {3}), view(i64.data(), {2}), view(i32.data(), {3}), 1), Error);
  EXPECT_THROW(update_idle(ctx, view(i64.data(), {3}), view(i64.data(), {3}), view(f32.data(), {3}), 1), Error);
}

}  // namespace
}  // namespace gsae::test
