#include "kernels/matmul.h"

#include <string>

#include "tests/harness.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

// What one addition may be off by: tensor cores, which do the products of bf16 and tf32, cut off where f32 rounds.
double unit(const Context& ctx, DType t, bool tf32 = false) {
  return ctx.device() == Device::kCuda && (t == DType::kBF16 || tf32) ? 2 * kUnit : kUnit;
}

struct Matmul : OnDevice {};
ON_DEVICES(Matmul);
struct Linear : OnDevice {};
ON_DEVICES(Linear);

struct Shape {
  int64_t m, n, k;
};

float at(const std::vector<float>& v, bool transposed, int64_t rows, int64_t columns, int64_t r, int64_t c) {
  return transposed ? v[c * rows + r] : v[r * columns + c];
}

// out[i,j] in doubles, and the sum of the absolute values of its terms.
struct Entry {
  double value = 0, terms = 0;
};
Entry entry(const std::vector<float>& a, const std::vector<float>& b, Shape s, MatmulOptions o, int64_t i, int64_t j) {
  Entry e;
  for (int64_t l = 0; l < s.k; ++l) {
    const double term = double(at(a, o.transpose_a, s.m, s.k, i, l)) * at(b, o.transpose_b, s.k, s.n, l, j);
    e.value += term;
    e.terms += std::fabs(term);
  }
  return e;
}

std::string describe(Shape s, DType t, MatmulOptions o) {
  return std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k) + " " + name(t) +
         (o.transpose_a ? " a^T" : "") + (o.transpose_b ? " b^T" : "") + (o.accumulate ? " accumulate" : "") +
         (o.tf32 ? " tf32" : "") + (o.bias ? " bias" : "");
}

template <class F> void every_option(F&& f) {
  for (const DType t : {DType::kF32, DType::kBF16})
    for (const bool a : {false, true})
      for (const bool b : {false, true})
        for (const bool sum : {false, true}) f(t, MatmulOptions{.transpose_a = a, .transpose_b = b, .accumulate = sum});
}

Guarded matrix(Context& ctx, DType t, bool transposed, int64_t rows, int64_t columns, const std::vector<float>& v) {
  return transposed ? Guarded(ctx, t, {columns, rows}, v) : Guarded(ctx, t, {rows, columns}, v);
}

// One error per product and per addition at most, in whatever order: (k + 1) u sum |a b|, of which a bias is one
// more term. Products of bf16 are exact in f32, so its bound is the same.
TEST_P(Matmul, MatchesDoubles) {
  every_option([&](DType t, MatmulOptions o) {
    for (const Shape s : {Shape{1, 1, 1}, Shape{1, 37, 5}, Shape{37, 1, 5}, Shape{3, 4, 1}, Shape{13, 29, 71},
                          Shape{64, 48, 192}, Shape{65, 130, 257}})
      for (const bool with_bias : {false, true}) {
        if (with_bias && o.accumulate) continue;
        SCOPED_TRACE(describe(s, t, o));
        const auto a = uniform(s.m * s.k, 1, t, -2, 2), b = uniform(s.k * s.n, 2, t, -2, 2),
                   before = uniform(s.m * s.n, 3, DType::kF32, -9, 9), bias = uniform(s.n, 4, DType::kF32, -9, 9);
        Guarded out(ctx, DType::kF32, {s.m, s.n}), add(ctx, DType::kF32, {s.n}, bias);
        if (o.accumulate) copy(ctx, out, Guarded(ctx, DType::kF32, {s.m, s.n}, before));
        MatmulOptions options = o;
        if (with_bias) options.bias = add;
        matmul(ctx, out, matrix(ctx, t, o.transpose_a, s.m, s.k, a), matrix(ctx, t, o.transpose_b, s.k, s.n, b),
               options);
        std::vector<double> want, terms;
        for (int64_t i = 0; i < s.m; ++i)
          for (int64_t j = 0; j < s.n; ++j) {
            const Entry e = entry(a, b, s, o, i, j);
            const double start = o.accumulate ? before[i * s.n + j] : with_bias ? bias[j] : 0;
            want.push_back(start + e.value);
            terms.push_back(std::fabs(start) + e.terms);
          }
        expect_close(out.read(), want, 0, double(s.k + 1) * unit(ctx, t), terms);
      }
  });
}

// Operands keep ten bits of their mantissa: rounded or cut off, each is off by less than 2^-10 of itself. A product is
// off by less than 2^-9 + 2^-20 of its size.
TEST_P(Matmul, Tf32MatchesDoubles) {
  if (!on_cuda()) GTEST_SKIP() << "tf32 is cuda's";
  for (const bool transpose : {false, true})
    for (const Shape s : {Shape{1, 1, 1}, Shape{3, 5, 1}, Shape{13, 29, 71}, Shape{65, 48, 257}}) {
      const MatmulOptions o{.transpose_a = transpose, .transpose_b = !transpose, .tf32 = true};
      SCOPED_TRACE(describe(s, DType::kF32, o));
      const auto a = uniform(s.m * s.k, 1, DType::kF32, -2, 2), b = uniform(s.k * s.n, 2, DType::kF32, -2, 2);
      Guarded out(ctx, DType::kF32, {s.m, s.n});
      matmul(ctx, out, matrix(ctx, DType::kF32, o.transpose_a, s.m, s.k, a),
             matrix(ctx, DType::kF32, o.transpose_b, s.k, s.n, b), o);
      std::vector<double> want, terms;
      for (int64_t i = 0; i < s.m; ++i)
        for (int64_t j = 0; j < s.n; ++j) {
          const Entry e = entry(a, b, s, o, i, j);
          want.push_back(e.value), terms.push_back(e.terms);
        }
      expect_close(out.read(), want, 0, 0x1p-9 + 0x1p-20 + double(s.k + 1) * unit(ctx, DType::kF32, true), terms);
    }
}

// 1 + 2^-12 has no place in tf32, and f32 keeps it: the option does what it says, and nothing else does.
TEST_P(Matmul, Tf32IsWhatWasAskedFor) {
  Guarded a(ctx, DType::kF32, {64, 64}, std::vector<float>(64 * 64, 1 + 0x1p-12f));
  Guarded b(ctx, DType::kF32, {64, 64}, std::vector<float>(64 * 64, 1.0f)), out(ctx, DType::kF32, {64, 64});
  matmul(ctx, out, a, b);
  EXPECT_EQ(out.read(), std::vector<float>(64 * 64, 64 + 0x1p-6f));
  if (on_cuda()) {
    matmul(ctx, out, a, b, {.tf32 = true});
    // a GPU is allowed tf32, and may find f32 faster for a product as small as this
    const std::vector<float> got = out.read(), rounded(64 * 64, 64.0f), whole(64 * 64, 64 + 0x1p-6f);
    EXPECT_TRUE(got == rounded || (got == whole && !emulated(ctx)));
    Guarded narrow(ctx, DType::kBF16, {64, 64}, std::vector<float>(64 * 64, 1.0f));
    EXPECT_THROW(matmul(ctx, out, narrow, narrow, {.tf32 = true}), Error);
  } else {
    EXPECT_THROW(matmul(ctx, out, a, b, {.tf32 = true}), Error);
  }
}

// Sums over k are not split in an order that is left open, and those of bf16 results are rounded once.
TEST_P(Matmul, TheSameBitsAgain) {
  every_option([&](DType t, MatmulOptions o) {
    for (const Shape s : {Shape{65, 33, 700}, Shape{1, 9, 5000}}) {
      SCOPED_TRACE(describe(s, t, o));
      const auto a = uniform(s.m * s.k, 1, t, -2, 2), b = uniform(s.k * s.n, 2, t, -2, 2),
                 before = uniform(s.m * s.n, 3, DType::kF32, -9, 9);
      std::vector<float> first;
      for (int run = 0; run < 4; ++run) {
        Guarded out(ctx, DType::kF32, {s.m, s.n}, before);
        matmul(ctx, out, matrix(ctx, t, o.transpose_a, s.m, s.k, a), matrix(ctx, t, o.transpose_b, s.k, s.n, b), o);
        if (run == 0) first = out.read();
        else EXPECT_EQ(out.read(), first);
      }
    }
  });
}

// One shape at every alignment that rows of f32 and bf16 can have: an algorithm chosen for one must not serve another.
TEST_P(Matmul, OperandsAtAnyAddress) {
  const int64_t m = 5, n = 8, k = 16, room = 256;
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto a = integers(m * k, 1, -3, 3), b = integers(k * n, 2, -3, 3), bias = integers(n, 3, -3, 3);
    std::vector<float> want(m * n);
    for (int64_t i = 0; i < m * n; ++i) want[i] = float(bias[i % n] + entry(a, b, {m, n, k}, {}, i / n, i % n).value);
    Guarded wide_a(ctx, t, {room}), wide_b(ctx, t, {room}), wide_out(ctx, DType::kF32, {room}),
        wide_bias(ctx, DType::kF32, {room});
    const auto at = [](Tensor whole, int64_t offset, std::initializer_list<int64_t> shape) {
      Tensor t = whole;
      t.ptr += static_cast<size_t>(offset) * size_of(t.dtype);
      t.dim = {1};
      std::copy(shape.begin(), shape.end(), t.dim.begin());
      t.rank = static_cast<int>(shape.size());
      return t;
    };
    for (const int64_t offset : {8, 4, 2, 1, 0, 3})
      for (int moved = 0; moved < 4; ++moved) {
        const Tensor ta = at(wide_a, moved == 0 ? offset : 0, {m, k}), tb = at(wide_b, moved == 1 ? offset : 0, {k, n});
        const Tensor to = at(wide_out, moved == 2 ? offset : 0, {m, n});
        const Tensor add = at(wide_bias, moved == 3 ? offset : 0, {n});
        copy(ctx, ta, Guarded(ctx, t, {m, k}, a));
        copy(ctx, tb, Guarded(ctx, t, {k, n}, b));
        copy(ctx, add, Guarded(ctx, DType::kF32, {n}, bias));
        matmul(ctx, to, ta, tb, {.bias = add});
        EXPECT_EQ(download<float>(ctx, to), want) << "operand " << moved << " moved by " << offset;
      }
  }
}

// Larger than every tile of the path that widens bf16 (512 x 4096, and as much of k as the workspace holds beside
// them), and ragged in each. Integers: exact in any order, so single entries, at the borders, compare with ==.
TEST(MatmulCpu, BeyondOneTileOfTheWidenedPath) {
  Context ctx(Device::kCpu);
  const Shape s{520, 4100, 1900};
  const auto bias = integers(s.n, 3, -9, 9);
  const Guarded add(ctx, DType::kF32, {s.n}, bias);
  const auto a = integers(s.m * s.k, 1, -3, 3), b = integers(s.k * s.n, 2, -3, 3);
  for (const bool transpose_a : {false, true})
    for (const bool transpose_b : {false, true}) {
      MatmulOptions o{.transpose_a = transpose_a, .transpose_b = transpose_b, .accumulate = transpose_a};
      if (!o.accumulate) o.bias = add;
      SCOPED_TRACE(describe(s, DType::kBF16, o));
      Guarded out(ctx, DType::kF32, {s.m, s.n}, std::vector<float>(s.m * s.n, 5.0f));
      matmul(ctx, out, matrix(ctx, DType::kBF16, transpose_a, s.m, s.k, a),
             matrix(ctx, DType::kBF16, transpose_b, s.k, s.n, b), o);
      const std::vector<float> got = out.read();
      for (const int64_t i : {0, 1, 511, 512, 519})
        for (const int64_t j : {0, 7, 4095, 4096, 4099})
          EXPECT_EQ(got[i * s.n + j], (o.accumulate ? 5 : bias[j]) + entry(a, b, s, o, i, j).value) << i << ", " << j;
    }
}

// A view of some rows is what the training step's tiles and gradients are; the rows around it stay as they were.
TEST_P(Matmul, ViewsOfRows) {
  const int64_t k = 24, n = 10;
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto a = integers(9 * k, 1, -3, 3), b = integers(40 * n, 2, -3, 3);
    Guarded out(ctx, DType::kF32, {8, n}, std::vector<float>(8 * n, 99.0f));
    matmul(ctx, Tensor(out).rows(2, 7), Tensor(Guarded(ctx, t, {9, k}, a)).rows(3, 8),
           Tensor(Guarded(ctx, t, {40, n}, b)).rows(11, 11 + k));
    const std::vector<float> got = out.read();
    for (int64_t r = 0; r < 8; ++r)
      for (int64_t j = 0; j < n; ++j) {
        float want = 0;
        for (int64_t l = 0; l < k; ++l) want += a[(r + 1) * k + l] * b[(11 + l) * n + j];
        EXPECT_EQ(got[r * n + j], r < 2 || r >= 7 ? 99.0f : want) << r << ", " << j;
      }
  }
}

// The same products with other leading dimensions, one after the other: the cache must tell them apart.
TEST_P(Matmul, OneContextManyProducts) {
  every_option([&](DType t, MatmulOptions o) {
    const Shape s{6, 6, 6};
    SCOPED_TRACE(describe(s, t, o));
    const auto a = integers(36, 1, -3, 3), b = integers(36, 2, -3, 3), before = integers(36, 3, -3, 3);
    Guarded out(ctx, DType::kF32, {6, 6}, before);
    matmul(ctx, out, Guarded(ctx, t, {6, 6}, a), Guarded(ctx, t, {6, 6}, b), o);
    std::vector<float> want(36);
    for (int64_t i = 0; i < 36; ++i)
      want[i] = float((o.accumulate ? before[i] : 0) + entry(a, b, s, o, i / 6, i % 6).value);
    EXPECT_EQ(out.read(), want);
  });
}

TEST_P(Matmul, NanPropagates) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    std::vector<float> a(3 * 5, 1.0f);
    a[7] = std::nanf("");
    Guarded out(ctx, DType::kF32, {3, 4});
    matmul(ctx, out, Guarded(ctx, t, {3, 5}, a), Guarded(ctx, t, {5, 4}, std::vector<float>(20, 0.0f)));
    const std::vector<float> got = out.read();
    for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(std::isnan(got[i]), i / 4 == 1) << i;
  }
}

// The shapes of the training step's five products, small: the thread that computes an entry must not matter.
TEST(MatmulCpu, SameBitsWithAnyNumberOfThreads) {
  if (!cpu::has_bf16_products()) GTEST_SKIP() << "oneDNN's f32 product for AVX2 splits its sums among the threads";
  every_option([](DType t, MatmulOptions o) {
    for (const Shape s : {Shape{200, 1024, 96}, Shape{200, 96, 1024}, Shape{96, 512, 300}, Shape{33, 7, 2000}}) {
      SCOPED_TRACE(describe(s, t, o));
      const auto a = uniform(s.m * s.k, 1, t, -2, 2), b = uniform(s.k * s.n, 2, t, -2, 2),
                 before = uniform(s.m * s.n, 3, DType::kF32, -9, 9);
      std::vector<float> first;
      for (const int count : {1, 2, 3}) {
        const Threads threads(count);
        Context ctx(Device::kCpu);
        Guarded out(ctx, DType::kF32, {s.m, s.n}, before);
        matmul(ctx, out, matrix(ctx, t, o.transpose_a, s.m, s.k, a), matrix(ctx, t, o.transpose_b, s.k, s.n, b), o);
        if (count == 1) first = out.read();
        else EXPECT_EQ(out.read(), first) << count << " threads";
      }
    }
  });
}

TEST_P(Matmul, RefusesWrongShapes) {
  Guarded a(ctx, DType::kF32, {2, 3}), b(ctx, DType::kF32, {3, 4}), out(ctx, DType::kF32, {2, 4});
  Guarded b16(ctx, DType::kBF16, {3, 4}), out16(ctx, DType::kBF16, {2, 4}), wrong(ctx, DType::kF32, {4, 2});
  EXPECT_THROW(matmul(ctx, out, a, b16), Error);
  EXPECT_THROW(matmul(ctx, out16, a, b), Error);
  EXPECT_THROW(matmul(ctx, wrong, a, b), Error);
  EXPECT_THROW(matmul(ctx, out, a, b, {.transpose_a = true}), Error);
  EXPECT_THROW(matmul(ctx, out, a, b, {.transpose_b = true}), Error);
  EXPECT_THROW(matmul(ctx, out, Tensor(a).reshape({6}), b), Error);
  Guarded bias(ctx, DType::kF32, {4}), long_bias(ctx, DType::kF32, {5}), bias16(ctx, DType::kBF16, {4});
  EXPECT_NO_THROW(matmul(ctx, out, a, b, {.bias = bias}));
  EXPECT_THROW(matmul(ctx, out, a, b, {.bias = long_bias}), Error);
  EXPECT_THROW(matmul(ctx, out, a, b, {.bias = bias16}), Error);
  EXPECT_THROW(matmul(ctx, out, a, b, {.accumulate = true, .bias = bias}), Error);
}

// Every shape once, whatever was asked of it in between.
TEST_P(Matmul, SaysWhatWasChosen) {
  Guarded a(ctx, DType::kBF16, {8, 16}, std::vector<float>(8 * 16)),
      b(ctx, DType::kBF16, {24, 16}, integers(384, 1, 0, 1));
  Guarded out(ctx, DType::kF32, {8, 24});
  for (int i = 0; i < 3; ++i) matmul(ctx, out, a, b, {.transpose_b = true});
  matmul(ctx, Tensor(out).rows(0, 4), Tensor(a).rows(0, 4), b, {.transpose_b = true});
  const std::vector<std::string> lines = chosen_products(ctx);
  ASSERT_EQ(lines.size(), on_cuda() ? 2u : 0u);
  if (on_cuda()) {
    EXPECT_EQ(lines[0].find("4 x 24 x 16, bf16 a b^T -> f32: algorithm "), 0u) << lines[0];
    EXPECT_EQ(lines[1].find("8 x 24 x 16, bf16 a b^T -> f32: algorithm "), 0u) << lines[1];
  }
}

// x (n, k), weights of these rows each, of integers, against exact sums: out = (x w_0^T, x w_1^T, ...). The sums are at
// most k in size, and bf16 rounds them once.
void check_linear(Context& ctx, DType x_type, DType w_type, DType out_type, int64_t n, int64_t k,
                  std::initializer_list<int64_t> rows) {
  SCOPED_TRACE(std::string(name(x_type)) + " x " + name(w_type) + " -> " + name(out_type) + " k " + std::to_string(k));
  const auto x = integers(n * k, 1, -3, 3);
  int64_t columns = 0;
  std::vector<std::vector<float>> values;
  std::vector<Guarded> weights;
  for (const int64_t r : rows) {
    values.push_back(integers(r * k, 10 + uint32_t(values.size()), -3, 3));
    weights.emplace_back(ctx, w_type, std::initializer_list<int64_t>{r, k}, values.back());
    columns += r;
  }
  const std::vector<Tensor> views(weights.begin(), weights.end());
  Guarded out(ctx, out_type, {n, columns});
  linear(ctx, out, Guarded(ctx, x_type, {n, k}, x), views);
  std::vector<float> want(n * columns);
  int64_t column = 0;
  for (const auto& w : values) {
    const int64_t count = static_cast<int64_t>(w.size()) / k;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < count; ++j) {
        int64_t sum = 0;
        for (int64_t l = 0; l < k; ++l) sum += static_cast<int32_t>(x[i * k + l]) * static_cast<int32_t>(w[j * k + l]);
        float& to = want[i * columns + column + j];
        to = static_cast<float>(sum);
        if (out_type == DType::kBF16) to = to_float(to_bf16(to));
      }
    column += count;
  }
  EXPECT_EQ(out.read(), want);
}

template <class F> void every_dtypes(const Context& ctx, F&& f) {
  for (const DType x : {DType::kF32, DType::kBF16})
    for (const DType w : {DType::kF32, DType::kBF16})
      for (const DType out : {DType::kF32, DType::kBF16})
        if ((x == w || ctx.device() == Device::kCpu) && (out == DType::kF32 || x == DType::kBF16)) f(x, w, out);
}

TEST_P(Linear, StackedWeights) {
  every_dtypes(ctx, [&](DType x, DType w, DType out) {
    check_linear(ctx, x, w, out, 1, 3, {1});
    check_linear(ctx, x, w, out, 9, 70, {8, 3, 3});
    check_linear(ctx, x, w, out, 33, 64, {16, 32});
    check_linear(ctx, x, w, out, 33, 64, {16});  // the same product as above, but for the leading dimension of out
    check_linear(ctx, x, w, out, 3, 1, {7});
    check_linear(ctx, x, w, out, 130, 2000, {5, 64});
  });
}

// Weights that lie one behind the other, as the arena leaves those whose bytes are a multiple of 256, are one product:
// the same sums as apart.
TEST_P(Linear, AdjacentWeights) {
  const int64_t n = 7, k = 64;
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto values = integers(3 * 12 * k, 1, -3, 3), x = integers(n * k, 2, -3, 3);
    Guarded all(ctx, t, {36, k}, values), in(ctx, t, {n, k}, x), together(ctx, t, {n, 36}), apart(ctx, t, {n, 36});
    const Tensor w = all;
    Guarded copied(ctx, t, {8, k});
    copy(ctx, copied, w.rows(16, 24));
    linear(ctx, together, in, std::vector<Tensor>{w.rows(0, 16), w.rows(16, 24), w.rows(24, 24), w.rows(24, 36)});
    linear(ctx, apart, in, std::vector<Tensor>{w.rows(0, 16), copied, w.rows(24, 36)});
    EXPECT_EQ(together.read(), apart.read());
    // and not in the order of memory
    linear(ctx, apart, in, std::vector<Tensor>{w.rows(24, 36), w.rows(16, 24), w.rows(0, 16)});
    const std::vector<float> a = together.read(), b = apart.read();
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < 36; ++j)
        EXPECT_EQ(b[i * 36 + j], a[i * 36 + (j < 12 ? j + 24 : j < 20 ? j + 4 : j - 20)]) << i << ", " << j;
    if (on_cuda() && t == DType::kF32) {
      EXPECT_EQ(chosen_products(ctx).size(), 4u);  // 36 rows; 16, 8 and 12
    }
  }
}

// On cuda nothing is converted on the way: a bf16 checkpoint computes in bf16, or was widened when it was loaded.
TEST_P(Linear, WeightsOfTheOtherType) {
  if (!on_cuda()) GTEST_SKIP() << "cpu converts them, panel by panel";
  Guarded x(ctx, DType::kBF16, {2, 8}, std::vector<float>(16)), w(ctx, DType::kF32, {3, 8}, std::vector<float>(24));
  Guarded out(ctx, DType::kF32, {2, 3});
  try {
    linear(ctx, out, x, std::vector<Tensor>{w});
    FAIL() << "not refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("load the weights in the dtype"), std::string::npos) << e.what();
  }
}

// Rows of 2^18 numbers: the workspace of 32 MiB holds 32 of them in f32 (16 where the other half holds x) or 64 in
// bf16, so 70 rows and 5 more come in several panels, the last ones ragged; 20 rows of x in two blocks or three, where
// x is widened. |sum| < 9 * 2^18 < 2^24: exact.
TEST(LinearCpu, Panels) {
  Context ctx(Device::kCpu);
  every_dtypes(ctx, [&](DType x, DType w, DType out) {
    check_linear(ctx, x, w, out, x == w ? 20 : 2, 1 << 18, {70, 5});
  });
}

// What f32 weights become for a bf16 x: rounded to nearest even where the product is bf16's, kept where x is widened.
TEST(LinearCpu, PrecisionIsThatOfX) {
  Context ctx(Device::kCpu);
  const std::vector<float> x{1, 1}, w{1 + 0x1p-8f, 2 + 0x3p-7f};  // ties: to 1, and to 2 + 2^-5
  Guarded out(ctx, DType::kF32, {1, 1});
  const Guarded weight(ctx, DType::kF32, {1, 2}, w);
  const std::vector<Tensor> one{weight};
  linear(ctx, out, Guarded(ctx, DType::kBF16, {1, 2}, x), one);
  EXPECT_EQ(out.read()[0], 3 + 0x1p-5f);
  linear(ctx, out, Guarded(ctx, DType::kF32, {1, 2}, x), one);
  EXPECT_EQ(out.read()[0], 3 + 0x1p-8f + 0x3p-7f);
}

TEST_P(Linear, RefusesWrongShapes) {
  Guarded x(ctx, DType::kF32, {2, 8}), w(ctx, DType::kF32, {3, 8}), narrow(ctx, DType::kF32, {3, 7}),
      out(ctx, DType::kF32, {2, 6}), short_out(ctx, DType::kF32, {2, 5});
  EXPECT_NO_THROW(linear(ctx, out, x, std::vector<Tensor>{w, w}));
  EXPECT_THROW(linear(ctx, out, x, std::vector<Tensor>{w, narrow}), Error);
  EXPECT_THROW(linear(ctx, short_out, x, std::vector<Tensor>{w, w}), Error);
  Guarded out16(ctx, DType::kBF16, {2, 6});
  EXPECT_THROW(linear(ctx, out16, x, std::vector<Tensor>{w, w}), Error);  // x is f32
  // a row that does not fit the workspace would be written past its end
  const int64_t k = Context::kWorkspaceBytes;
  Tensor wide = x, weight = w, one = out;
  wide.dim = {1, k}, weight.dim = {1, k}, one.dim = {1, 1}, weight.dtype = DType::kBF16;
  EXPECT_THROW(linear(ctx, one, wide, std::vector<Tensor>{weight}), Error);
}

// tests/CMakeLists.txt runs all of the above a second time under oneDNN's limit to AVX2: a processor without bf16
// products. Were the limit not taken, that run would repeat the first.
TEST(MatmulCpu, TheLimitedProcessorHasNoBf16Products) {
  EXPECT_FALSE(std::getenv("GSAE_WITHOUT_BF16_PRODUCTS") && cpu::has_bf16_products());
}

}  // namespace
}  // namespace gsae::test
