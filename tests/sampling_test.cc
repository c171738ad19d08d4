#include "model/sampling.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/files.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

// The probabilities by their definition: every token sorted, in doubles.
std::vector<double> reference(const std::vector<float>& logits, const SamplingOptions& o) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  if (o.top_k > 0 && size_t(o.top_k) < order.size()) order.resize(size_t(o.top_k));
  std::vector<double> p(logits.size());
  double total = 0, sum = 0;
  for (const int i : order) total += p[i] = std::exp((double(logits[i]) - logits[order[0]]) / o.temperature);
  size_t kept = 0;
  while (kept < order.size() && (sum < o.top_p * total || o.top_p == 1)) sum += p[order[kept++]];
  for (size_t i = kept; i < order.size(); ++i) p[order[i]] = 0;
  for (double& x : p) x /= sum;
  return p;
}

std::vector<int64_t> count(const std::vector<float>& logits, const SamplingOptions& o, int64_t draws, uint64_t seed) {
  Sampler sampler(o, seed);
  std::vector<int64_t> counts(logits.size());
  for (int64_t i = 0; i < draws; ++i) ++counts[size_t(sampler.draw(logits, i % 7, i / 7).id)];
  return counts;
}

// Fixed seeds: each token's count within 4.5 standard deviations, what has no probability never.
TEST(Sampling, CountsFollowTheProbabilities) {
  const auto logits = uniform(40, 1, DType::kF32, -3, 3);
  constexpr int64_t kDraws = 40000;
  for (const SamplingOptions& o : {SamplingOptions{1, 0, 1},
                                   {0.5, 0, 1},
                                   {2, 0, 1},
                                   {1, 5, 1},
                                   {0.7, 0, 0.8},
                                   {1.3, 12, 0.9},
                                   {1, 40, 0.999},
                                   {1, 1000, 1},
                                   {1e4, 3, 1}}) {
    const auto p = reference(logits, o);
    const auto counts = count(logits, o, kDraws, 5);
    for (size_t i = 0; i < p.size(); ++i) {
      const double sd = std::sqrt(kDraws * p[i] * (1 - p[i]));
      EXPECT_NEAR(double(counts[i]), kDraws * p[i], 4.5 * sd + (p[i] > 0 ? 1 : 0))
          << i << ": temperature " << o.temperature << ", top_k " << o.top_k << ", top_p " << o.top_p;
    }
  }
}

TEST(Sampling, NoTemperatureTakesTheFirstOfTheHighest) {
  Sampler sampler({.temperature = 0}, 1);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(sampler.draw(std::vector<float>{1, 7, 3, 7, -2}, 0, i).id, 1);
}

// As hot as it may be, one token is left.
TEST(Sampling, OneOfTheMostLikelyIsTheMostLikely) {
  const std::vector<float> logits{1, 7, 3, 7, -2};
  for (const SamplingOptions& o : {SamplingOptions{1e6, 1, 1}, {1e6, 0, 1e-9}, {1e6, 4, 1e-9}, {1e-9, 0, 1}}) {
    Sampler sampler(o, 3);
    for (int64_t i = 0; i < 50; ++i) {
      const int32_t id = sampler.draw(logits, 0, i).id;
      if (o.temperature < 1) EXPECT_TRUE(id == 1 || id == 3);  // two that are as likely
      else EXPECT_EQ(id, 1);
    }
  }
}

// Of equals the lower ids are among the k; and p counts tokens whole: 0.5 of four equals are two, 0.51 are three.
TEST(Sampling, Ties) {
  const std::vector<float> equal{2, 2, 2, 2};
  const auto ids = [&](SamplingOptions o) {
    std::vector<int> seen;
    const auto counts = count(equal, o, 400, 9);
    for (int i = 0; i < 4; ++i)
      if (counts[size_t(i)] > 0) seen.push_back(i);
    return seen;
  };
  EXPECT_EQ(ids({1, 0, 1}), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(ids({1, 3, 1}), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(ids({1, 0, 0.5}), (std::vector<int>{0, 1}));
  EXPECT_EQ(ids({1, 0, 0.51}), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(ids({1, 2, 0.5}), (std::vector<int>{0}));  // of what top_k leaves
}

// The probability that is told is the model's own, whatever is sampled from.
TEST(Sampling, LogProbabilities) {
  const std::vector<float> logits{0.5f, -1, 2, 25, 24.5f};
  double sum = 0;
  for (const float l : logits) sum += std::exp(double(l));
  for (const SamplingOptions& o : {SamplingOptions{0, 0, 1}, {1, 0, 1}, {3, 2, 0.9}}) {
    Sampler sampler(o, 1);
    for (int64_t i = 0; i < 20; ++i) {
      const SampledToken t = sampler.draw(logits, 0, i);
      EXPECT_NEAR(t.logprob, double(logits[size_t(t.id)]) - std::log(sum), 1e-6);
    }
  }
}

TEST(Sampling, SeedSequenceAndPositionDecide) {
  const auto logits = uniform(1000, 1, DType::kF32, 0, 1);
  const auto draw = [&](uint64_t seed, int64_t sequence) {
    Sampler sampler({.temperature = 1}, seed);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < 50; ++i) ids.push_back(sampler.draw(logits, sequence, i).id);
    return ids;
  };
  const auto first = draw(1, 0);
  EXPECT_EQ(draw(1, 0), first);
  EXPECT_NE(draw(2, 0), first);
  EXPECT_NE(draw(1, 1), first);
  Sampler again({.temperature = 1}, 1);  // in any order
  EXPECT_EQ(again.draw(logits, 0, 49).id, first[49]);
  EXPECT_EQ(again.draw(logits, 0, 0).id, first[0]);
  EXPECT_GT(std::set(first.begin(), first.end()).size(), 40u);
}

TEST(Sampling, LogitsThatAreNoNumbersAreAnError) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature}, 1);
    EXPECT_ERROR(sampler.draw(std::vector<float>{1, std::nanf(""), 3}, 0, 0), "not finite");
    EXPECT_ERROR(sampler.draw(std::vector<float>{std::nanf(""), 1}, 0, 0), "not finite");
    EXPECT_ERROR(sampler.draw(std::vector<float>{1, HUGE_VALF}, 0, 0), "not finite");
    EXPECT_EQ(sampler.draw(std::vector<float>{-HUGE_VALF, 1}, 0, 0).id, 1);
  }
}

}  // namespace
}  // namespace gsae::test
