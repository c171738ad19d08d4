#include "kernels/few_rows.h"

#include "kernels/matmul.h"
#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct Case {
  int64_t n, k;
  std::vector<int64_t> rows;  // of the weights
};
const std::vector<Case> kCases{{1, 1, {1}},     {1, 16, {4}},           {1, 300, {7, 5, 3}},
                               {2, 33, {9}},    {3, 192, {64, 32, 33}}, {5, 47, {2, 13}},
                               {8, 2304, {21}}, {8, 15, {1, 1, 1}},     {1, 2304, {130, 67}}};

std::vector<float> run(Context& ctx, const Case& c, DType x_type, DType w_type, DType out_type, int64_t first,
                       int64_t n) {
  const auto all = uniform(8 * c.k, 1, x_type, -1, 1);
  int64_t columns = 0;
  std::vector<Guarded> guarded;
  guarded.reserve(c.rows.size());
  for (const int64_t rows : c.rows) {
    guarded.emplace_back(ctx, w_type, std::initializer_list<int64_t>{rows, c.k},
                         uniform(rows * c.k, uint32_t(2 + columns), w_type, -1, 1));
    columns += rows;
  }
  const std::vector<Tensor> weights(guarded.begin(), guarded.end());
  Guarded x(ctx, x_type, {n, c.k}, std::vector<float>(all.begin() + first * c.k, all.begin() + (first + n) * c.k));
  Guarded out(ctx, out_type, {n, columns});
  linear(ctx, out, x, weights);
  return out.read();
}

constexpr std::array kTypes{DType::kF32, DType::kBF16};

// Bounded f32: a sum of k products is off by sqrt(k) roundings of its terms' magnitudes at most. In bf16 the weights
// are those numbers rounded to bf16.
TEST(FewRows, MatchesReference) {
  Context ctx(Device::kCpu);
  for (const Case& c : kCases)
    for (const DType x_type : kTypes)
      for (const DType w_type : kTypes) {
        const auto x = uniform(8 * c.k, 1, x_type, -1, 1);
        int64_t columns = 0;
        for (const int64_t rows : c.rows) columns += rows;
        std::vector<double> want(c.n * columns), terms(want.size());
        int64_t before = 0;
        for (const int64_t rows : c.rows) {
          const auto w = uniform(rows * c.k, uint32_t(2 + before), w_type, -1, 1);
          for (int64_t i = 0; i < c.n; ++i)
            for (int64_t r = 0; r < rows; ++r)
              for (int64_t l = 0; l < c.k; ++l) {
                float e = w[r * c.k + l];
                if (x_type == DType::kBF16) e = to_float(to_bf16(e));
                want[i * columns + before + r] += double(x[i * c.k + l]) * e;
                terms[i * columns + before + r] += std::fabs(double(x[i * c.k + l]) * e);
              }
          before += rows;
        }
        const auto got = run(ctx, c, x_type, w_type, DType::kF32, 0, c.n);
        expect_close(got, want, 0, 0x1p-24 * (1 + std::sqrt(double(c.k))), terms);
        if (x_type == DType::kF32) continue;
        auto rounded = got;  // once
        for (float& v : rounded) v = to_float(to_bf16(v));
        EXPECT_EQ(run(ctx, c, x_type, w_type, DType::kBF16, 0, c.n), rounded);
      }
}

// A row's bits are its own: alone, among others, and with any number of threads.
TEST(FewRows, NeitherCompanyNorThreadsMatter) {
  Context ctx(Device::kCpu);
  const Case c{8, 2304, {130, 70, 33}};
  for (const DType x_type : kTypes) {
    const auto eight = run(ctx, c, x_type, DType::kBF16, DType::kF32, 0, 8);
    const Threads threads(3);
    for (int64_t n = 1; n <= 7; ++n) {
      const auto some = run(ctx, c, x_type, DType::kBF16, DType::kF32, 8 - n, n);
      EXPECT_EQ(some, std::vector<float>(eight.end() - n * 233, eight.end())) << n;
    }
  }
}

// x that would not fit the workspace in f32 goes the other way.
TEST(FewRows, WideRowsAreNotFew) {
  float x = 0;
  EXPECT_TRUE(cpu::has_few_rows(view(&x, {8, 1 << 20})));
  EXPECT_FALSE(cpu::has_few_rows(view(&x, {8, 1 << 21})));
  EXPECT_FALSE(cpu::has_few_rows(view(&x, {9, 1})));
}

}  // namespace
}  // namespace gsae::test
