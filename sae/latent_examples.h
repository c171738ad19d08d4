#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "kernels/examples.h"
#include "sae/inference.h"
#include "sae/sae_parameters.h"

namespace gsae {

// An activation of a latent, and the number of the row where it is.
struct LatentExample {
  float value = 0;
  int32_t row = -1;
};

// What was seen of one latent's activations f: kernels/examples.h says how they are chosen.
struct LatentSummary {
  int64_t count = 0;  // rows with f > 0
  double sum = 0;     // of f
  double scale = 0;   // every f is below it; 0: there was none. The histogram and the bands divide [0, scale).
  std::array<int64_t, Examples::kBins> histogram{};
  std::vector<LatentExample> top{};                                  // of different contexts, largest first
  std::array<std::vector<LatentExample>, Examples::kBands> bands{};  // a random choice by size

  float max() const { return top.empty() ? 0 : top[0].value; }
};

// The same of all latents, on the host.
class LatentSummaries {
 public:
  LatentSummaries(Context& ctx, const Examples& examples);  // an Error if an activation was NaN or infinite

  int64_t latents() const { return static_cast<int64_t>(count_.size()); }
  int64_t count(int64_t i) const { return count_[static_cast<size_t>(i)]; }
  double sum(int64_t i) const { return sum_[static_cast<size_t>(i)]; }
  LatentSummary of(int64_t i) const;
  std::vector<int64_t> fired() const { return {count_.begin(), count_.end()}; }

 private:
  std::vector<int32_t> count_, scale_, histogram_, top_row_, band_row_;
  std::vector<double> sum_;
  std::vector<float> top_value_, band_value_;
};

// Device memory for what one SAE after the other does with the rows of a batch: up to `rows` of them, of SAEs of up to
// `width` and `latents`.
struct CollectionWorkspace {
  CollectionWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t latents);

  Tensor x;  // (rows * width) f32
  SaeWorkspace sae;
};

// Encodes the rows index[...] of a site and adds what fires to `examples`; row[...] are their numbers, ascending, every
// T of which are a context.
void collect_examples(Context& ctx, const Examples& examples, Tensor rows, Tensor index, Tensor row, int64_t T,
                      const SaeParameters& sae, const CollectionWorkspace& workspace, uint64_t seed);

// The encoder of some of an SAE's latents, in the order given, as one that has only these: W_dec is theirs too. Its
// memory, on the context's device, is `memory`.
SaeParameters select_latents(Context& ctx, const SaeParameters& sae, std::span<const int64_t> latents, Buffer& memory);

}  // namespace gsae
