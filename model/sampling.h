#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/philox.h"

namespace gsae {

struct SamplingOptions {
  double temperature = 0;  // 0: the most likely token, always
  int64_t top_k = 0;       // among so many of the most likely; 0: all
  double top_p = 1;        // and of those the fewest whose probabilities sum to at least this part; in (0, 1]
};

struct SampledToken {
  int32_t id = 0;
  double logprob = 0;  // log p of the model itself: temperature 1, the whole vocabulary
};

// Chooses the next token of a sequence, on the host.
//
// The probabilities are those of logits / temperature; then top_k, then top_p of what it leaves (as transformers orders
// them), then the rest scaled to 1. Of equally likely tokens the one with the lower id counts as more likely, so that
// top_k leaves exactly k. Sums in f64. The same random numbers give the same token, on any machine on which the logits
// are the same.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, uint64_t seed) : options_(options), seed_(seed) {}

  // `sequence` and `position` say which random number it is. An Error if a logit is NaN or none is finite.
  SampledToken draw(std::span<const float> logits, int64_t sequence, int64_t position);

 private:
  int32_t choose(std::span<const float> logits, float highest, double uniform);

  SamplingOptions options_;
  uint64_t seed_;
  std::vector<int32_t> ids_;    // that are left, the most likely first where their order matters
  std::vector<double> weight_;  // exp((logit - highest) / temperature) of each token
};

}  // namespace gsae
