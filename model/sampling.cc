#include "model/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/vector_math.h"

namespace gsae {

namespace {

// The first of the highest.
int32_t argmax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// log sum exp(l - highest)
double log_sum(std::span<const float> logits, float highest) {
  const float* l = logits.data();
  const auto n = static_cast<int64_t>(logits.size());
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(vector_exp(l[i] - highest));
  return std::log(sum);
}

// [0, 1), 53 bits of it
double uniform(uint64_t seed, int64_t sequence, int64_t position) {
  const Random random(seed, Random::kSampleTokens, static_cast<uint64_t>(sequence));
  return static_cast<double>(random.bits(static_cast<uint64_t>(position)) >> 11) * 0x1p-53;
}

}  // namespace

SampledToken Sampler::draw(std::span<const float> logits, int64_t sequence, int64_t position) {
  CHECK(!logits.empty() && options_.temperature >= 0 && options_.top_k >= 0 && options_.top_p > 0,
        "sample: no logits, or options that say nothing");
  const float highest = logits[static_cast<size_t>(argmax(logits))];
  const double log_total = log_sum(logits, highest);  // NaN if any logit is
  if (!std::isfinite(highest) || std::isnan(log_total))
    throw Error("the model's logits are not finite: its weights are damaged, or an edit moves activations too far");
  const int32_t id =
      options_.temperature > 0 ? choose(logits, highest, uniform(seed_, sequence, position)) : argmax(logits);
  return {id, static_cast<double>(logits[static_cast<size_t>(id)]) - highest - log_total};
}

int32_t Sampler::choose(std::span<const float> logits, float highest, double uniform) {
  const size_t n = logits.size();
  weight_.resize(n);
  for (size_t i = 0; i < n; ++i)
    weight_[i] = std::exp((static_cast<double>(logits[i]) - static_cast<double>(highest)) / options_.temperature);
  ids_.resize(n);
  std::iota(ids_.begin(), ids_.end(), 0);
  const auto more_likely = [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; };
  const auto weigh = [&] {
    return std::accumulate(ids_.begin(), ids_.end(), 0.0, [&](double sum, int32_t i) { return sum + weight_[i]; });
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < n) {
    std::partial_sort(ids_.begin(), ids_.begin() + options_.top_k, ids_.end(), more_likely);
    ids_.resize(static_cast<size_t>(options_.top_k));
  }
  double total = weigh();
  if (options_.top_p < 1) {
    // The most likely come off a heap one by one: they are few, and the vocabulary is long.
    const auto less_likely = [&](int32_t a, int32_t b) { return more_likely(b, a); };
    std::make_heap(ids_.begin(), ids_.end(), less_likely);
    auto end = ids_.end();
    double sum = 0;
    while (end != ids_.begin() && sum < options_.top_p * total) {
      std::pop_heap(ids_.begin(), end--, less_likely);
      sum += weight_[*end];
    }
    ids_.erase(ids_.begin(), end);
    std::reverse(ids_.begin(), ids_.end());
    total = sum;
  }
  // The first at which the sum passes a part of the total that is below 1; the last one, should rounding pass it by.
  double rest = uniform * total;
  for (const int32_t id : ids_) {
    rest -= weight_[id];
    if (rest < 0) return id;
  }
  return *std::max_element(ids_.begin(), ids_.end(), [&](int32_t a, int32_t b) { return weight_[a] < weight_[b]; });
}

}  // namespace gsae
