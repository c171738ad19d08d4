#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/token_stream.h"
#include "model/gemma2.h"
#include "sae/decoder_neighbours.h"
#include "sae/latent_examples.h"
#include "tools/evaluate.h"
#include "tools/latent_choice.h"
#include "tools/logit_attribution.h"
#include "tools/progress.h"

namespace gsae {

// A stretch of a context around a token where a latent is active.
struct ContextExample {
  float value = 0;                               // f at the peak
  int64_t context = 0, position = 0, begin = 0;  // of the pass; of the peak in it; of the first token here
  std::vector<int32_t> tokens;
  std::vector<float> values;  // f at each of them; 0 at special tokens
};

// An interval of f, and some of the places where f lies in it.
struct ActivationBand {
  double low = 0, high = 0;
  int64_t count = 0;
  std::vector<ContextExample> examples;
};

// An element of a decoder row: the coordinate, its value, and its share of the sum of absolute values.
struct Coordinate {
  int64_t index = 0;
  float value = 0, share = 0;
};

struct LatentDashboard {
  int64_t latent = 0;
  LatentSummary summary{};
  std::vector<ContextExample> top{};      // largest first
  std::vector<ActivationBand> bands{};    // highest first, without empty ones
  LogitAttribution logits{};              // no tokens where the site has none
  std::vector<Neighbour> neighbours{};    // by decoder cosine
  std::vector<Coordinate> coordinates{};  // the largest elements of the decoder row
};

struct SaeDashboards {
  int64_t tokens = 0, contexts = 0, context = 0;  // seen, without special ones; contexts; tokens of each
  std::vector<int64_t> fired;                     // (F) tokens on which each latent fired
  std::vector<LatentDashboard> latents;           // those chosen, in their order
};

struct DashboardOptions {
  int64_t tokens = 1000000;  // at most, special ones included
  LatentChoice choice;
  int64_t top = 10, per_band = 3;            // examples shown; at most Examples::kTop, Examples::kPerBand
  int64_t before = 40, after = 15;           // tokens around the peak of a top example
  int64_t band_before = 24, band_after = 8;  // and of a band's
  int64_t logits = 10, neighbours = 8;
  uint64_t seed = 0;
};

// Dashboards of the targets' latents, from one pass over the next contexts of `stream` for all SAEs that fit into
// memory together (the others follow on the same contexts), and a second one over those contexts alone that hold a
// chosen example. An Error with the plan if not one SAE fits, or if the stream holds no context.
std::vector<SaeDashboards> make_dashboards(Context& ctx, const Gemma2& model, TokenStream& stream,
                                           std::span<const EvaluationTarget> targets, const DashboardOptions& options,
                                           Progress& progress);

}  // namespace gsae
