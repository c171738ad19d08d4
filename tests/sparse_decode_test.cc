#include "kernels/sparse_decode.h"

#include "kernels/graph.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/reconstruction.h"
#include "tests/entries_fixture.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct SparseDecode : OnDevice {};
ON_DEVICES(SparseDecode);

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

// By hand, B = 2, F = 3, d = 2, theta = 1/2 and a window of 1/4 around it.
//   z = (1, 0.4375, -1; 0.5, 2, 3):  row 0 has latent 0 and, not on, 1;  row 1 has 0 (not on: z <= theta), 1 and 2
//   x_hat[0] = (1, 2);  x_hat[1] = 2 (-1, 1) + 3 (0, 1) = (-2, 5)
//   e[0] = (1, 2) + (1, 0) - (2, 1) = (0, 1);  e[1] = (-2, 5) + (1, 0) - (1, 1) = (-2, 4)
TEST_P(SparseDecode, WorkedExample) {
  const std::vector<float> theta(3, 0.5f), z{1, 0.4375f, -1, 0.5f, 2, 3};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    GuardedEntries entries(ctx, z, theta, 0.125f);
    Guarded dx(ctx, t, {2, 2}), error(ctx, DType::kF32, {2}), l0(ctx, DType::kF32, {2}),
        dbias(ctx, DType::kF32, {2}, {10, 20});
    sparse_decode(ctx, dx, error, l0, dbias, entries, Guarded(ctx, DType::kF32, {2, 2}, {2, 1, 1, 1}),
                  Guarded(ctx, t, {3, 2}, {1, 2, -1, 1, 0, 1}), Guarded(ctx, DType::kF32, {2}, {1, 0}),
                  Guarded(ctx, DType::kF32, {3}, theta), 0.5f);
    EXPECT_EQ(dx.read(), (std::vector<float>{0, 0.5f, -1, 2}));
    EXPECT_EQ(error.read(), (std::vector<float>{1, 20}));
    EXPECT_EQ(l0.read(), (std::vector<float>{1, 2}));
    EXPECT_EQ(dbias.read(), (std::vector<float>{9, 22.5f}));
    EXPECT_EQ(entries.df(ctx), (std::vector<float>{1, 0.5f, 0, 3, 3, 2}));
  }
}

struct Shape {
  int64_t n, latents, d;
  double density;
};
// A warp for each row and a block, both widths of access, more entries than are looked up at once (cpu 64, cuda 128),
// a pass over W_dec's row by all threads and several.
const Shape kShapes[] = {{1, 1, 1, 1},        {5, 9, 7, 0.4},    {33, 40, 32, 0.2},  {40, 300, 192, 0.05},
                         {4, 400, 64, 0.6},   {3, 200, 260, 1},  {6, 50, 2304, 0.2}, {5, 20, 2305, 0.3},
                         {17, 12, 256, 0.25}, {3, 8, 4608, 0.5}, {2, 300, 5, 0.9}};

struct Case {
  Case(Context& ctx, Shape s, DType t, bool empty_row, float bandwidth = 0.25f)
      : ctx(ctx),
        shape(s),
        type(t),
        theta(uniform(s.latents, 1, DType::kF32, 0.125f, 0.5f)),
        z(sparse_z(s.n, theta, bandwidth / 2, s.density, empty_row, 2)),
        x(uniform(s.n * s.d, 4, DType::kF32, -1, 1)),
        W(uniform(s.latents * s.d, 5, t, -1, 1)),
        bias(uniform(s.d, 6, DType::kF32, -1, 1)),
        entries(ctx, z, theta, bandwidth / 2),
        dx(ctx, t, {s.n, s.d}),
        error(ctx, DType::kF32, {s.n}),
        l0(ctx, DType::kF32, {s.n}),
        dbias(ctx, DType::kF32, {s.d}, std::vector<float>(s.d, 0.25f)),
        xs(ctx, DType::kF32, {s.n, s.d}, x),
        Ws(ctx, t, {s.latents, s.d}, W),
        b(ctx, DType::kF32, {s.d}, bias),
        thetas(ctx, DType::kF32, {s.latents}, theta) {}
  void run() { sparse_decode(ctx, dx, error, l0, dbias, entries, xs, Ws, b, thetas, kScale); }
  std::vector<float> all() {  // the bits of everything, without the NaN of z that are no entries
    auto v = dx.read();
    const auto gradients = entries.df(ctx);
    for (const auto& more : {error.read(), l0.read(), dbias.read(), gradients})
      v.insert(v.end(), more.begin(), more.end());
    return v;
  }

  static constexpr float kScale = 0.3f;
  Context& ctx;
  Shape shape;
  DType type;
  std::vector<float> theta, z, x, W, bias;
  GuardedEntries entries;
  Guarded dx, error, l0, dbias, xs, Ws, b, thetas;
};

// e is a sum of k + 2 terms, in f32: |error of e| <= (k + 3) u A with A the sum of their magnitudes; k latents are on.
// dx has the error of e and one rounding more. The squares: 2 |e| (error of e), and (d + 2) u of the sum itself. dbias:
// the errors of its terms, and (n + 1) u of the sum. df is a sum of d products with the dx that the op gave: (d + 1) u.
// And the same from the dense ops, which have the same bounds; in bf16 an e at the edge between two numbers may round
// either way, by an ulp of bf16, 2^-7.
TEST_P(SparseDecode, MatchesDoublesAndTheDenseOps) {
  bool empty_row = false;
  for (const Shape s : kShapes)
    for (const DType t : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(testing::Message() << s.n << " x " << s.latents << " x " << s.d << " " << name(t));
      empty_row = !empty_row && s.n > 1;
      const auto [n, F, d, density] = s;
      Case c(ctx, s, t, empty_row);
      c.run();
      const auto dx = c.dx.read(), df = c.entries.df(ctx),
                 ones = c.entries.spread(ctx, std::vector<float>(c.entries->capacity(), 1.0f));
      const double step = t == DType::kBF16 ? 0x1p-8 : kUnit;  // dx's rounding
      std::vector<double> e(n * d), e_bound(n * d), squares(n), squares_bound(n), sums(d, 0.25), sums_bound(d, kUnit);
      std::vector<double> want_df(n * F), df_bound(n * F), dense_bound(n * F);
      std::vector<float> counts(n);
      for (int64_t r = 0; r < n; ++r) {
        for (int64_t i = 0; i < F; ++i) counts[r] += c.z[r * F + i] > c.theta[i];
        for (int64_t j = 0; j < d; ++j) {
          double sum = double(c.bias[j]) - c.x[r * d + j], size = std::fabs(c.bias[j]) + std::fabs(c.x[r * d + j]);
          for (int64_t i = 0; i < F; ++i) {
            if (c.z[r * F + i] <= c.theta[i]) continue;
            const double term = double(rounded(c.z[r * F + i], t)) * c.W[i * d + j];
            sum += term, size += std::fabs(term);
          }
          const double bound = (double(counts[r]) + 3) * kUnit * size;
          e[r * d + j] = double(Case::kScale) * sum;
          e_bound[r * d + j] = double(Case::kScale) * (bound + kUnit * std::fabs(sum));
          squares[r] += sum * sum;
          squares_bound[r] += 2 * std::fabs(sum) * bound + bound * bound + double(d + 2) * kUnit * sum * sum;
          sums[j] += e[r * d + j];
          sums_bound[j] += e_bound[r * d + j] + double(n + 1) * kUnit * std::fabs(e[r * d + j]);
        }
        for (int64_t i = 0; i < F; ++i) {
          if (ones[r * F + i] == 0) continue;
          double size = 0, change = 0;
          for (int64_t j = 0; j < d; ++j) {
            const double w = c.W[i * d + j], g = dx[r * d + j];
            want_df[r * F + i] += g * w, size += std::fabs(g * w);
            change += std::fabs(w) * (2 * e_bound[r * d + j] + (t == DType::kBF16 ? 0x1p-7 * std::fabs(g) : 0));
          }
          df_bound[r * F + i] = double(d + 1) * kUnit * size;
          dense_bound[r * F + i] = 2 * df_bound[r * F + i] + change;
        }
      }
      expect_close(dx, e, step, 1, e_bound);
      expect_close(c.error.read(), squares, 0, 1, squares_bound);
      EXPECT_EQ(c.l0.read(), counts);
      expect_close(c.dbias.read(), sums, 0, 1, sums_bound);
      expect_close(df, want_df, 0, 1, df_bound);

      Guarded f(ctx, t, {n, F}), l0(ctx, DType::kF32, {n}), x_hat(ctx, DType::kF32, {n, d}), dense_dx(ctx, t, {n, d}),
          error(ctx, DType::kF32, {n}), dbias(ctx, DType::kF32, {d}, std::vector<float>(d, 0.25f)),
          dense_df(ctx, DType::kF32, {n, F}), z(ctx, DType::kF32, {n, F}, c.z);
      jump_relu(ctx, f, z, c.thetas, l0, {});
      matmul(ctx, x_hat, f, c.Ws);
      reconstruction_error(ctx, dense_dx, error, dbias, x_hat, c.b, c.xs, Case::kScale);
      matmul(ctx, dense_df, dense_dx, c.Ws, {.transpose_b = true});
      const auto as_double = [](const std::vector<float>& v) { return std::vector<double>(v.begin(), v.end()); };
      expect_close(dx, as_double(dense_dx.read()), 2 * step, 2, e_bound);
      expect_close(c.error.read(), as_double(error.read()), 0, 2, squares_bound);
      EXPECT_EQ(c.l0.read(), l0.read());
      expect_close(c.dbias.read(), as_double(dbias.read()), 0, 2, sums_bound);
      auto dense = as_double(dense_df.read());
      for (int64_t at = 0; at < n * F; ++at) dense[at] *= double(ones[at]);
      expect_close(df, dense, 0, 1, dense_bound);
    }
}

// More rows than a block has teams and a grid has blocks: small integers, so that all sums are exact.
TEST_P(SparseDecode, ManyRows) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{4100, 4}, {1030, 260}}) {
    const int64_t F = 3;
    const std::vector<float> theta(F, 0.5f);
    const auto z = integers(n * F, 1, -1, 2), x = integers(n * d, 2, -2, 2), W = integers(F * d, 3, -2, 2);
    GuardedEntries entries(ctx, z, theta, 0.125f);
    Guarded dx(ctx, DType::kF32, {n, d}), error(ctx, DType::kF32, {n}), l0(ctx, DType::kF32, {n}),
        dbias(ctx, DType::kF32, {d}, std::vector<float>(d));
    sparse_decode(ctx, dx, error, l0, dbias, entries, Guarded(ctx, DType::kF32, {n, d}, x),
                  Guarded(ctx, DType::kF32, {F, d}, W), Guarded(ctx, DType::kF32, {d}, std::vector<float>(d)),
                  Guarded(ctx, DType::kF32, {F}, theta), 1);
    std::vector<float> want(n * d), squares(n), sums(d), gradients(n * F);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t j = 0; j < d; ++j) {
        float& e = want[r * d + j];
        e = -x[r * d + j];
        for (int64_t i = 0; i < F; ++i) e += std::max(z[r * F + i], 0.0f) * W[i * d + j];
        squares[r] += e * e, sums[j] += e;
        for (int64_t i = 0; i < F; ++i)
          if (z[r * F + i] > 0) gradients[r * F + i] += e * W[i * d + j];
      }
    EXPECT_EQ(dx.read(), want);
    EXPECT_EQ(error.read(), squares);
    EXPECT_EQ(dbias.read(), sums);
    EXPECT_EQ(entries.df(ctx), gradients);
  }
}

// The residual may take the place of x.
TEST_P(SparseDecode, InPlace) {
  for (const Shape s : kShapes) {
    Case apart(ctx, s, DType::kF32, false), in_place(ctx, s, DType::kF32, false);
    apart.run();
    sparse_decode(ctx, in_place.xs, in_place.error, in_place.l0, in_place.dbias, in_place.entries, in_place.xs,
                  in_place.Ws, in_place.b, in_place.thetas, Case::kScale);
    EXPECT_EQ(in_place.xs.read(), apart.dx.read());
    EXPECT_EQ(in_place.error.read(), apart.error.read());
    EXPECT_EQ(in_place.entries.df(ctx), apart.entries.df(ctx));
  }
}

TEST_P(SparseDecode, NanIsOnAndShows) {
  const std::vector<float> theta(2, 0.5f), z{std::nanf(""), -1, 1, 2};
  const int64_t d = 300;
  GuardedEntries entries(ctx, z, theta, 0.125f);
  Guarded dx(ctx, DType::kBF16, {2, d}), error(ctx, DType::kF32, {2}), l0(ctx, DType::kF32, {2}),
      dbias(ctx, DType::kF32, {d}, std::vector<float>(d));
  sparse_decode(ctx, dx, error, l0, dbias, entries, Guarded(ctx, DType::kF32, {2, d}, std::vector<float>(2 * d)),
                Guarded(ctx, DType::kBF16, {2, d}, std::vector<float>(2 * d, 1)),
                Guarded(ctx, DType::kF32, {d}, std::vector<float>(d)), Guarded(ctx, DType::kF32, {2}, theta), 1);
  const auto got = dx.read(), squares = error.read(), gradients = entries.df(ctx);
  for (int64_t j = 0; j < d; ++j) {
    ASSERT_TRUE(std::isnan(got[j]));
    ASSERT_EQ(got[d + j], 3.0f);
  }
  EXPECT_TRUE(std::isnan(squares[0]) && squares[1] == 9.0f * float(d));
  EXPECT_EQ(l0.read(), (std::vector<float>{1, 2}));
  EXPECT_TRUE(std::isnan(gradients[0]) && gradients[2] == 3.0f * float(d));
}

TEST_P(SparseDecode, SameBitsEveryTime) {
  for (const Shape s : {Shape{67, 30, 64, 0.3}, Shape{50, 30, 300, 0.3}}) {
    std::vector<float> first;
    for (const int count : {1, 2, 3}) {
      const Threads threads(count);
      Case c(ctx, s, DType::kBF16, false);
      c.run();
      if (count == 1) first = c.all();
      else EXPECT_EQ(c.all(), first) << count << " threads";
    }
  }
}

TEST_P(SparseDecode, InAGraph) {
  Case one_by_one(ctx, {20, 30, 192, 0.2}, DType::kBF16, true), graphed(ctx, {20, 30, 192, 0.2}, DType::kBF16, true);
  Graph graph;
  for (int run = 0; run < 4; ++run) {
    one_by_one.run();
    graph.run(ctx, [&] { graphed.run(); });
    EXPECT_EQ(graphed.all(), one_by_one.all());
  }
}

TEST_P(SparseDecode, RefusesWrongOperands) {
  const std::vector<float> theta(4, 0.5f);
  GuardedEntries entries(ctx, std::vector<float>(8, 1.0f), theta, 0.1f),
      other(ctx, std::vector<float>(12, 1.0f), theta, 0.1f);
  Guarded dx(ctx, DType::kF32, {2, 3}, std::vector<float>(6)), dx16(ctx, DType::kBF16, {2, 3}),
      rows(ctx, DType::kF32, {2}), d(ctx, DType::kF32, {3}), W(ctx, DType::kF32, {4, 3}),
      W16(ctx, DType::kBF16, {4, 3}), thetas(ctx, DType::kF32, {4}, theta), wide(ctx, DType::kF32, {4, 4});
  const Tensor x = dx;
  EXPECT_NO_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, x, W, d, thetas, 1));
  EXPECT_THROW(sparse_decode(ctx, dx16, rows, rows, d, entries, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, x, W16, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, dx16, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, wide, rows, rows, d, entries, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, d, rows, d, entries, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, d, d, entries, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, rows, entries, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, other, x, W, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, x, wide, d, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, x, W, rows, thetas, 1), Error);
  EXPECT_THROW(sparse_decode(ctx, dx, rows, rows, d, entries, x, W, d, d, 1), Error);
}

}  // namespace
}  // namespace gsae::test
