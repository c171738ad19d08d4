#include "kernels/lm_loss.h"

#include "tests/threads.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct Case {
  const char* name;
  int64_t n, d, vocabulary, rows, columns;
  float cap;
  float reach;  // of h; the table is in [-1, 1)
  DType h = DType::kF32, table = DType::kF32;
  friend void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }
};

struct Operands {
  explicit Operands(const Case& c)
      : h(uniform(c.n * c.d, 1, c.h, -c.reach, c.reach)), table(uniform(c.vocabulary * c.d, 2, c.table, -1, 1)) {
    // the first word, the last, none, and any
    for (int64_t r = 0; r < c.n; ++r) {
      const int64_t any = (r * 7919) % c.vocabulary;
      targets.push_back(static_cast<int32_t>(r % 5 == 0 ? c.vocabulary - 1 : r % 5 == 1 ? 0 : r % 5 == 2 ? -1 : any));
    }
  }
  std::vector<float> h, table;
  std::vector<int32_t> targets;
};

struct LmLoss : OnDevice {
  std::vector<float> run(const Case& c, const Operands& x) {
    Guarded h(ctx, c.h, {c.n, c.d}, x.h), table(ctx, c.table, {c.vocabulary, c.d}, x.table),
        scratch(ctx, DType::kF32, {c.rows, c.columns}), nll(ctx, DType::kF32, {c.n});
    lm_loss(ctx, nll, h, table, on_device(ctx, x.targets), c.cap, scratch);
    scratch.read();  // its canaries
    return nll.read();
  }

  std::vector<Case> cases() const;
  void matches_reference(const Case& c);
};
ON_DEVICES(LmLoss);

// Chunks that divide the vocabulary, do not, are one word, are wider than it, than what a block takes at a time; blocks
// of one row, ragged, more than there are, more than the op takes at once; logits far beyond the cap and beyond exp;
// both dtypes.
std::vector<Case> LmLoss::cases() const {
  constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16;
  const int64_t many = emulated(ctx) ? 100 : 1200;
  std::vector<Case> all{{"chunks_whole", 10, 16, 96, 5, 32, 30, 4},
                        {"chunks_ragged", 11, 16, 101, 4, 32, 30, 4},
                        {"chunks_of_one", 7, 8, 13, 3, 1, 30, 4},
                        {"chunk_wider", 7, 24, 50, 100, 64, 0, 1},
                        {"no_cap", 9, 32, 333, 4, 100, 0, 2},
                        {"beyond_the_cap", 12, 64, 300, 8, 77, 30, 60},
                        {"beyond_exp", 12, 64, 300, 8, 77, 0, 60},
                        {"wide_chunks", 5, 8, 9001, 3, 4480, 30, 4},
                        {"wide_chunks_unaligned", 5, 8, 1401, 3, 2000, 0, 4},
                        {"many_rows", many + many / 4, 8, 40, many, 12, 30, 4},
                        {"bf16", 20, 64, 257, 16, 100, 30, 8, kBF16, kBF16}};
  for (Case& c : all) c.columns += on_cuda() ? 4 : 0;  // where it carries its sums
  all.push_back({"one_of_each", 1, 1, 1, 1, on_cuda() ? 5 : 1, 30, 1});
  if (!on_cuda()) {
    all.push_back({"table_bf16", 20, 64, 257, 16, 100, 30, 8, kF32, kBF16});
    all.push_back({"h_bf16", 20, 64, 257, 16, 100, 30, 8, kBF16, kF32});
  }
  return all;
}

// The definition in doubles. A logit is off by sqrt(d) roundings of its terms at most (generous for random signs), by
// the cap's 4e-7 and two roundings; the log-sum-exp by no more than its worst logit, plus 2 ulp of exp, on a GPU twice;
// the result rounds once. Where h is bf16 and the table is not, the table is rounded to bf16 first, by contract.
void LmLoss::matches_reference(const Case& c) {
  const Operands x(c);
  std::vector<double> want(c.n), bound(c.n);
  constexpr double kUlp = 0x1p-23;
  for (int64_t r = 0; r < c.n; ++r) {
    std::vector<double> l(c.vocabulary);
    double max = -HUGE_VAL, error = 0;
    for (int64_t v = 0; v < c.vocabulary; ++v) {
      double terms = 0;
      for (int64_t i = 0; i < c.d; ++i) {
        const float e = x.table[v * c.d + i];
        const double t = double(x.h[r * c.d + i]) * (c.h == DType::kBF16 ? to_float(to_bf16(e)) : e);
        l[v] += t, terms += std::fabs(t);
      }
      double e = std::sqrt(double(c.d)) * kUlp * terms;
      if (c.cap > 0) {
        const double t = std::tanh(l[v] / c.cap);
        e = e * (1 - t * t) + c.cap * std::fabs(t) * (4e-7 + 2 * kUlp);
        l[v] = c.cap * t;
      }
      error = std::max(error, e + kUlp * std::fabs(l[v]));
      max = std::max(max, l[v]);
    }
    double sum = 0;
    for (const double v : l) sum += std::exp(v - max);
    want[r] = x.targets[r] < 0 ? 0 : max + std::log(sum) - l[x.targets[r]];
    bound[r] = 2 * error + 4 * kUlp + kUlp * std::fabs(want[r]);
  }
  expect_close(run(c, x), want, 0, 1, bound);
}

TEST_P(LmLoss, MatchesReference) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    matches_reference(c);
  }
}

// Nor, on a GPU, the order of its threads.
TEST_P(LmLoss, ThreadsDoNotMatter) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(c.name);
    const Operands x(c);
    std::vector<float> results[2];
    for (const int threads : {1, 2}) {
      const Threads these(threads);
      results[threads - 1] = run(c, x);
    }
    EXPECT_EQ(results[0], results[1]);
  }
}

// By hand: equal logits give log V.
TEST_P(LmLoss, EqualLogitsGiveLogV) {
  Case c{"", 3, 4, 1000, 2, 300, 30, 1};
  Operands x(c);
  std::fill(x.h.begin(), x.h.end(), 0.0f);
  x.targets = {0, 999, -1};
  const float log_v = std::log(1000.0f);
  expect_close(run(c, x), std::vector{log_v, log_v, 0.0f}, 2e-7);
  // all so low that exp of them is 0: the maximum counts, and nothing above it
  std::fill(x.h.begin(), x.h.end(), 100.0f);
  std::fill(x.table.begin(), x.table.end(), -1.0f);
  c.cap = 0;
  expect_close(run(c, x), std::vector{log_v, log_v, 0.0f}, 2e-7);
}

// By hand: of chunks whose logits lie farther apart than exp reaches, in f64 too, the highest counts, whether it comes
// first or last.
TEST_P(LmLoss, ChunksFarApart) {
  Case c{"", 2, 1, 50, 2, on_cuda() ? 20 : 16, 0, 1};
  Operands x(c);
  x.h = {1, -1};
  for (int64_t v = 0; v < 50; ++v) x.table[v] = v < 16 ? 5000 : -5000;
  x.targets = {0, 0};
  expect_close(run(c, x), std::vector{std::log(16.0), 10000 + std::log(34.0)}, 1e-7);
}

TEST_P(LmLoss, NanIsNotHidden) {
  Case c{"", 4, 4, 50, 2, 16, 30, 1};
  Operands x(c);
  x.targets = {1, 2, 3, 4};
  x.table[49 * 4] = std::numeric_limits<float>::quiet_NaN();  // of a word that is no row's target
  for (const float y : run(c, x)) EXPECT_TRUE(std::isnan(y));
}

TEST_P(LmLoss, RefusesTargetsOutsideTheVocabulary) {
  Case c{"", 3, 4, 50, 2, 16, 30, 1};
  Operands x(c);
  x.targets = {0, 49, 50};
  const auto message = [&] {
    try {
      run(c, x);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(message(), "lm_loss: target 50 of row 2 is not a token of the vocabulary of 50 (-1: no loss)");
  x.targets = {0, -2, 2147483647};
  EXPECT_EQ(message(), "lm_loss: target -2 of row 1 is not a token of the vocabulary of 50 (-1: no loss)");
  x.targets = {0, 1, 2};
  EXPECT_EQ(message(), "");
  x.targets = {0, 1};
  EXPECT_THROW(run(c, x), Error);
}

TEST_P(LmLoss, RefusesWhatDoesNotFit) {
  const auto targets = on_device<int32_t>(ctx, {0, 0, 0});
  Guarded nll(ctx, DType::kF32, {3}), h(ctx, DType::kF32, {3, 8}), table(ctx, DType::kF32, {10, 8}),
      scratch(ctx, DType::kF32, {2, 4});
  EXPECT_THROW(lm_loss(ctx, nll, h, Guarded(ctx, DType::kF32, {10, 4}), targets, 30, scratch), Error);
  EXPECT_THROW(lm_loss(ctx, nll, h, table, targets, -1, scratch), Error);
  EXPECT_THROW(lm_loss(ctx, nll, h, table, targets, 30, Tensor{}), Error);
  EXPECT_THROW(lm_loss(ctx, Guarded(ctx, DType::kF32, {4}), h, table, targets, 30, scratch), Error);
  if (on_cuda()) {
    EXPECT_THROW(lm_loss(ctx, nll, h, Guarded(ctx, DType::kBF16, {10, 8}), targets, 30, scratch), Error);
    EXPECT_THROW(lm_loss(ctx, nll, h, table, targets, 30, Guarded(ctx, DType::kF32, {2, 2})), Error);
  }
}

}  // namespace
}  // namespace gsae::test
