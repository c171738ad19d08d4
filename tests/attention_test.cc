#include "kernels/attention.h"

#include <fmt/format.h>
#include <omp.h>

#include "tests/harness.h"

namespace gsae::test {
namespace {

struct Case {
  const char* name;
  int64_t B, heads, kv_heads, T, size;
  AttentionOptions options;
  float reach = 1;  // q and k in [-reach, reach)
  friend void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }
};

struct Operands {
  explicit Operands(const Case& c, uint32_t seed = 1)
      : q(uniform(c.B * c.heads * c.T * c.size, seed, DType::kF32, -c.reach, c.reach)),
        k(uniform(c.B * c.kv_heads * c.T * c.size, seed + 1, DType::kF32, -c.reach, c.reach)),
        v(uniform(c.B * c.kv_heads * c.T * c.size, seed + 2, DType::kF32, -1, 1)) {}
  std::vector<float> q, k, v;
};

std::vector<float> run(const Case& c, const Operands& x, DType dtype = DType::kF32) {
  Context ctx(Device::kCpu);
  Guarded q(ctx, DType::kF32, {c.B, c.heads, c.T, c.size}, x.q),
      k(ctx, DType::kF32, {c.B, c.kv_heads, c.T, c.size}, x.k),
      v(ctx, DType::kF32, {c.B, c.kv_heads, c.T, c.size}, x.v), out(ctx, dtype, {c.B * c.T, c.heads * c.size});
  attention(ctx, out, q, k, v, c.options);
  return out.read();
}

// The definition, in doubles, and for each element what f32 may be off by: every score is off by at most
// `score_error`, which moves each probability by twice that, relatively; and the sums over keys round.
void reference(const Case& c, const Operands& x, std::vector<double>& out, std::vector<double>& bound) {
  out.assign(c.B * c.T * c.heads * c.size, 0);
  bound.assign(out.size(), 0);
  constexpr double kUlp = 0x1p-23;
  for (int64_t b = 0; b < c.B; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const float* q = &x.q[(b * c.heads + h) * c.T * c.size];
      const int64_t kv = (b * c.kv_heads + h / (c.heads / c.kv_heads)) * c.T * c.size;
      for (int64_t i = 0; i < c.T; ++i) {
        const int64_t lo = c.options.window ? std::max<int64_t>(0, i - c.options.window + 1) : 0;
        std::vector<double> p(c.T);
        double max = -HUGE_VAL, sum = 0, error = 0;
        for (int64_t j = lo; j <= i; ++j) {
          double s = 0, terms = 0;
          for (int64_t e = 0; e < c.size; ++e) {
            const double t = double(q[i * c.size + e]) * x.k[kv + j * c.size + e];
            s += t, terms += std::fabs(t);
          }
          s *= c.options.scale, terms *= c.options.scale;
          const double cap = c.options.softcap;
          // sums of dh terms: sqrt(dh) roundings of the whole is generous for random signs; the cap's derivative is <=
          // 1
          double e = std::sqrt(double(c.size)) * kUlp * terms;
          if (cap > 0) {
            const double t = std::tanh(s / cap);
            e = e * (1 - t * t) + 4e-7 * cap * std::fabs(t) + kUlp * cap * std::fabs(t);
            s = cap * t;
          }
          p[j] = s;
          max = std::max(max, s);
          error = std::max(error, e + kUlp * std::fabs(s));
        }
        for (int64_t j = lo; j <= i; ++j) sum += p[j] = std::exp(p[j] - max);
        for (int64_t e = 0; e < c.size; ++e) {
          double y = 0, terms = 0;
          for (int64_t j = lo; j <= i; ++j) {
            y += p[j] / sum * x.v[kv + j * c.size + e];
            terms += p[j] / sum * std::fabs(x.v[kv + j * c.size + e]);
          }
          const int64_t at = (b * c.T + i) * c.heads * c.size + h * c.size + e;
          out[at] = y;
          bound[at] = terms * (2 * error + 8 * kUlp);
        }
      }
    }
  }
}

class Attention : public testing::TestWithParam<Case> {};

TEST_P(Attention, MatchesReference) {
  const Case& c = GetParam();
  const Operands x(c);
  std::vector<double> want, bound;
  reference(c, x, want, bound);
  expect_close(run(c, x), want, 0, 1, bound);
  expect_close(run(c, x, DType::kBF16), want, 0x1p-8, 1.01, bound);  // half an ulp of bf16 for the one rounding
}

TEST_P(Attention, ThreadsDoNotMatter) {
  const Case& c = GetParam();
  const Operands x(c);
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto one = run(c, x);
  omp_set_num_threads(3);
  const auto three = run(c, x);
  omp_set_num_threads(threads);
  EXPECT_EQ(one, three);
}

// Head sizes of Gemma 2 and odd ones; one, two and three query heads to a key head; lengths of one, one vector, one
// more, several tiles of keys and a ragged end; windows of one, below a vector, across tiles, and beyond T; scores far
// beyond the cap and beyond the range of exp.
INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    testing::Values(Case{"one_token", 2, 2, 1, 1, 16, {.scale = 0.25f}},
                    Case{"one_token_window_one", 1, 1, 1, 1, 8, {.scale = 0.5f, .softcap = 50, .window = 1}},
                    Case{"one_vector", 1, 4, 2, 16, 32, {.scale = 0.2f, .softcap = 50}},
                    Case{"one_more", 1, 4, 2, 17, 32, {.scale = 0.2f}},
                    Case{"odd_size", 2, 3, 1, 45, 24, {.scale = 0.2f, .softcap = 5, .window = 7}},
                    Case{"size_of_nothing_whole", 1, 2, 2, 37, 5, {.scale = 1, .softcap = 2}},
                    Case{"demo", 2, 4, 2, 256, 64, {.scale = 0.125f, .softcap = 50}, 3},
                    Case{"demo_sliding", 2, 4, 2, 256, 64, {.scale = 0.125f, .softcap = 50, .window = 64}, 3},
                    Case{"tiles_ragged", 1, 2, 1, 403, 16, {.scale = 0.25f}, 2},
                    Case{"window_across_tiles", 1, 2, 1, 403, 16, {.scale = 0.25f, .softcap = 50, .window = 300}, 2},
                    Case{"window_one", 1, 3, 3, 50, 16, {.scale = 0.25f, .window = 1}},
                    Case{"window_beyond_length", 1, 2, 1, 100, 128, {.scale = 0.1f, .window = 4096}, 2},
                    Case{"like_2b", 1, 4, 2, 150, 256, {.scale = 0.0625f, .softcap = 50, .window = 100}, 2},
                    Case{"beyond_the_cap", 1, 2, 1, 90, 64, {.scale = 1, .softcap = 50}, 6},
                    Case{"beyond_exp", 1, 2, 1, 300, 64, {.scale = 1, .window = 280}, 6}),
    [](const auto& p) { return p.param.name; });

// By hand: equal scores average what is seen, with and without a window.
TEST(AttentionOp, EqualScoresAverage) {
  Context ctx(Device::kCpu);
  Guarded q(ctx, DType::kF32, {1, 1, 4, 1}, {0, 0, 0, 0}), k(ctx, DType::kF32, {1, 1, 4, 1}, {1, 2, 3, 4}),
      v(ctx, DType::kF32, {1, 1, 4, 1}, {4, 8, 12, 0}), out(ctx, DType::kF32, {4, 1});
  attention(ctx, out, q, k, v, {.scale = 1});
  EXPECT_EQ(out.read(), (std::vector<float>{4, 6, 8, 6}));
  attention(ctx, out, q, k, v, {.scale = 1, .window = 2});
  EXPECT_EQ(out.read(), (std::vector<float>{4, 6, 10, 6}));
}

// What comes later, and what has left the window, must not move a bit of a result.
TEST(AttentionOp, UnseenTokensAreNotTouched) {
  const Case c{"", 1, 2, 1, 70, 16, {.scale = 0.25f, .softcap = 50, .window = 20}};
  Operands x(c);
  const auto clean = run(c, x);
  const int64_t changed = 40;
  for (int64_t e = 0; e < c.size; ++e) x.k[changed * c.size + e] = 1e4f, x.v[changed * c.size + e] = -1e4f;
  const auto dirty = run(c, x);
  const int64_t width = c.heads * c.size;
  for (int64_t i = 0; i < c.T; ++i) {
    const bool sees = i >= changed && i < changed + c.options.window;
    EXPECT_EQ(sees, !std::equal(&clean[i * width], &clean[i * width] + width, &dirty[i * width])) << "position " << i;
  }
}

TEST(AttentionOp, NanReachesItsReaders) {
  const Case c{"", 1, 1, 1, 40, 16, {.scale = 0.25f, .softcap = 50}};
  Operands x(c);
  x.q[7 * c.size] = std::numeric_limits<float>::quiet_NaN();
  const auto y = run(c, x);
  for (int64_t i = 0; i < c.T; ++i) EXPECT_EQ(std::isnan(y[i * c.size]), i == 7) << "position " << i;
}

TEST(AttentionOp, RefusesWhatDoesNotFit) {
  Context ctx(Device::kCpu);
  Guarded q(ctx, DType::kF32, {1, 4, 3, 8}), k(ctx, DType::kF32, {1, 2, 3, 8}), out(ctx, DType::kF32, {3, 32});
  EXPECT_THROW(attention(ctx, out, q, k, Guarded(ctx, DType::kF32, {1, 2, 4, 8}), {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, Guarded(ctx, DType::kF32, {3, 8}), q, k, k, {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, Guarded(ctx, DType::kF32, {1, 3, 3, 8}), k, {.scale = 1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, k, {.scale = 1, .window = -1}), Error);
  EXPECT_THROW(attention(ctx, out, q, k, k, {.scale = 1, .softcap = -1}), Error);
  Guarded wide(ctx, DType::kF32, {1, 1, 1, kMaxHeadSize + 8}), wide_out(ctx, DType::kF32, {1, kMaxHeadSize + 8});
  EXPECT_THROW(attention(ctx, wide_out, wide, wide, wide, {.scale = 1}), Error);
}

}  // namespace
}  // namespace gsae::test
