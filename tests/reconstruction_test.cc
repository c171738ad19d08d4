#include "kernels/reconstruction.h"

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct ReconstructionError : OnDevice {};
ON_DEVICES(ReconstructionError);

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

// By hand: e = (1, -2; 0, 3).
TEST_P(ReconstructionError, WorkedExample) {
  Guarded dx(ctx, DType::kF32, {2, 2}), error(ctx, DType::kF32, {2}), dbias(ctx, DType::kF32, {2}, {10, 20});
  Guarded x_hat(ctx, DType::kF32, {2, 2}, {1, 1, 2, 5}), bias(ctx, DType::kF32, {2}, {1, -1});
  Guarded x(ctx, DType::kF32, {2, 2}, {1, 2, 3, 1});
  reconstruction_error(ctx, dx, error, dbias, x_hat, bias, x, 0.5f);
  EXPECT_EQ(x_hat.read(), (std::vector<float>{1, -2, 0, 3}));
  EXPECT_EQ(dx.read(), (std::vector<float>{0.5, -1, 0, 1.5}));
  EXPECT_EQ(error.read(), (std::vector<float>{5, 9}));
  EXPECT_EQ(dbias.read(), (std::vector<float>{10.5, 20.5}));
}

struct Shape {
  int64_t n, d;
};
// With cuda's stripes of 512 columns (128 where d is odd) and chunks of 16 rows: less than one, one, one and a bit.
const Shape kShapes[] = {{1, 1},    {1, 65},   {3, 63},   {65, 64},  {40, 192}, {70, 515},
                         {16, 512}, {17, 516}, {33, 129}, {2, 1028}, {300, 4}};

// Multiples of 2^-8 and a scale of 2^-11: e, dx and the sum of dx are exact, and dx in bf16 is one rounding. The sum of
// d squares is not: all are positive, so its error is relative, (d + 1) u at most.
TEST_P(ReconstructionError, MatchesTheFormula) {
  const float scale = 0x1p-11f;
  for (const auto [n, d] : kShapes)
    for (const DType t : {DType::kF32, DType::kBF16}) {
      auto hat = integers(n * d, 1, -1000, 1000), bias = integers(d, 2, -300, 300), x = integers(n * d, 3, -1000, 1000);
      for (auto* v : {&hat, &bias, &x})
        for (float& e : *v) e *= 0x1p-8f;
      for (int64_t c = 0; c < d; ++c) x[c] = hat[c] + bias[c];  // a perfect row
      std::vector<float> e(n * d), dx(n * d);
      std::vector<double> error(n), dbias(d, 0.25);
      for (int64_t r = 0; r < n; ++r)
        for (int64_t c = 0; c < d; ++c) {
          const int64_t at = r * d + c;
          e[at] = hat[at] + bias[c] - x[at];
          dx[at] = t == DType::kF32 ? scale * e[at] : to_float(to_bf16(scale * e[at]));
          error[r] += double(e[at]) * e[at];
          dbias[c] += double(scale) * e[at];
        }
      Guarded hats(ctx, DType::kF32, {n, d}, hat), out(ctx, t, {n, d}), squares(ctx, DType::kF32, {n});
      Guarded sums(ctx, DType::kF32, {d}, std::vector<float>(d, 0.25f)), b(ctx, DType::kF32, {d}, bias);
      Guarded in(ctx, DType::kF32, {n, d}, x);
      reconstruction_error(ctx, out, squares, sums, hats, b, in, scale);
      EXPECT_EQ(hats.read(), e);
      EXPECT_EQ(out.read(), dx);
      EXPECT_EQ(sums.read(), std::vector<float>(dbias.begin(), dbias.end()));
      expect_close(squares.read(), error, double(d + 1) * kUnit);
      EXPECT_EQ(squares.read()[0], 0.0f);
      if (t == DType::kBF16) continue;
      Guarded inout(ctx, DType::kF32, {n, d}, hat);  // dx may be x_hat
      reconstruction_error(ctx, inout, squares, sums, inout, b, in, scale);
      EXPECT_EQ(inout.read(), dx);
      expect_close(squares.read(), error, double(d + 1) * kUnit);
    }
}

// A residual stream a thousand times its error: e cancels, so its two roundings are relative to the terms.
TEST_P(ReconstructionError, LargeRows) {
  const int64_t n = 30, d = 2304;
  const auto x = uniform(n * d, 1, DType::kF32, -300, 300), bias = uniform(d, 2, DType::kF32, -3, 3);
  auto hat = x;
  for (float& h : hat) h += 0.3f;
  std::vector<double> dx(n * d), terms(n * d);
  for (int64_t at = 0; at < n * d; ++at) {
    dx[at] = (double(hat[at]) + bias[at % d] - x[at]) * double(2.0f / 4096);
    terms[at] = (std::fabs(hat[at]) + std::fabs(bias[at % d]) + std::fabs(x[at])) * 2 / 4096;
  }
  Guarded out(ctx, DType::kF32, {n, d}), error(ctx, DType::kF32, {n}),
      dbias(ctx, DType::kF32, {d}, std::vector<float>(d));
  reconstruction_error(ctx, out, error, dbias, Guarded(ctx, DType::kF32, {n, d}, hat),
                       Guarded(ctx, DType::kF32, {d}, bias), Guarded(ctx, DType::kF32, {n, d}, x), 2.0f / 4096);
  expect_close(out.read(), dx, kUnit, 2 * kUnit, terms);
}

TEST_P(ReconstructionError, NanPropagates) {
  const int64_t n = 3, d = 70;
  std::vector<float> x(n * d, 1.0f);
  x[d + 66] = std::nanf("");
  const std::vector<float> zeros(n * d);
  Guarded dx(ctx, DType::kBF16, {n, d}), error(ctx, DType::kF32, {n}),
      dbias(ctx, DType::kF32, {d}, std::vector<float>(d));
  reconstruction_error(ctx, dx, error, dbias, Guarded(ctx, DType::kF32, {n, d}, zeros),
                       Guarded(ctx, DType::kF32, {d}, std::vector<float>(d)), Guarded(ctx, DType::kF32, {n, d}, x), 1);
  const auto out = dx.read(), squares = error.read(), sums = dbias.read();
  for (int64_t i = 0; i < n * d; ++i) EXPECT_EQ(std::isnan(out[i]), i == d + 66) << i;
  for (int64_t r = 0; r < n; ++r) EXPECT_EQ(std::isnan(squares[r]), r == 1) << r;
  for (int64_t c = 0; c < d; ++c) EXPECT_EQ(std::isnan(sums[c]), c == 66) << c;
}

TEST_P(ReconstructionError, SameBitsEveryTime) {
  const int64_t n = 300, d = 200;
  std::vector<float> first;
  for (const int count : {1, 2, 3}) {
    const Threads threads(count);
    Guarded dx(ctx, DType::kBF16, {n, d}), error(ctx, DType::kF32, {n}),
        dbias(ctx, DType::kF32, {d}, uniform(d, 1, DType::kF32, -1, 1));
    reconstruction_error(ctx, dx, error, dbias,
                         Guarded(ctx, DType::kF32, {n, d}, uniform(n * d, 2, DType::kF32, -1, 1)),
                         Guarded(ctx, DType::kF32, {d}, uniform(d, 3, DType::kF32, -1, 1)),
                         Guarded(ctx, DType::kF32, {n, d}, uniform(n * d, 4, DType::kF32, -1, 1)), 0.3f);
    auto all = dx.read();
    for (Guarded* g : {&error, &dbias})
      for (const float x : g->read()) all.push_back(x);
    if (count == 1) first = all;
    else EXPECT_EQ(all, first) << count << " threads";
  }
}

TEST_P(ReconstructionError, RefusesWrongShapes) {
  Guarded m(ctx, DType::kF32, {2, 3}), wide(ctx, DType::kF32, {2, 4}), v(ctx, DType::kF32, {3}),
      rows(ctx, DType::kF32, {2}), m16(ctx, DType::kBF16, {2, 3});
  EXPECT_NO_THROW(reconstruction_error(ctx, m16, rows, v, m, v, m, 1));
  EXPECT_THROW(reconstruction_error(ctx, wide, rows, v, m, v, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, v, v, m, v, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, rows, rows, m, v, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, rows, v, wide, v, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, rows, v, m16, v, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, rows, v, m, rows, m, 1), Error);
  EXPECT_THROW(reconstruction_error(ctx, m, rows, v, m, v, m16, 1), Error);
}

}  // namespace
}  // namespace gsae::test
