#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sae/latent_examples.h"

namespace gsae {

// Which latents of an SAE are looked at.
struct LatentChoice {
  enum class Kind { kNone, kTop, kRandom, kListed } kind = Kind::kTop;
  int64_t count = 100;          // of top and random; fewer if fewer are live
  std::vector<int64_t> listed;  // in the order given, each once

  // "top", "random", "none", or a list such as 1,2,3. A UsageError for anything else.
  static LatentChoice parse(const std::string& text, int64_t count);
  // A UsageError that names `option` if the choice is a list, of which --count says nothing.
  void require_count(const std::string& option) const;
  // The most that it will be.
  int64_t at_most(int64_t latents) const;
};

// A latent that is active on more of the tokens than this says little by where it is active.
constexpr double kDense = 0.01;

// By a LatentChoice:
//   top     those that carry most of x_hat: by the sum of f, which is the length of what a latent adds to x_hat, as
//           decoder rows have unit norm. Dead latents are left out; those that are active on more than kDense of the
//           tokens come behind all others.
//   random  of the live latents, drawn by the seed, in ascending order
//   listed  as they are; an Error names the SAE and the latent if it has no such latent
std::vector<int64_t> choose_latents(const LatentChoice& choice, const LatentSummaries& latents, int64_t tokens,
                                    uint64_t seed, const std::string& sae);

// An Error if the SAE has not all of the listed latents: before the work.
void require_latents(const LatentChoice& choice, int64_t latents, const std::string& sae);

}  // namespace gsae
