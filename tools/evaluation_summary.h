#pragma once

#include <span>
#include <string>
#include <vector>

#include "tools/evaluate.h"

namespace gsae {

// In what an SAE lies behind another of its place (site and layer): one with no more L0 and no more FVU, or delta loss,
// and less of one of the two. Those that are dominated in neither are the Pareto front.
struct Dominated {
  bool fvu = false, delta_loss = false;
};
std::vector<Dominated> pareto(const Evaluation& e, std::span<const EvaluationTarget> targets);

// Means over the SAEs of each place, by layer and site.
struct PlaceSummary {
  Site site = Site::kRes;
  int64_t layer = 0, saes = 0;
  double l0 = 0, fvu = 0, delta_loss = 0, loss_recovered = 0;
};
std::vector<PlaceSummary> by_place(const Evaluation& e, std::span<const EvaluationTarget> targets);

// "by_layer" and "pareto", each a list: what a suite's evaluation says beside its SAEs' figures.
nlohmann::ordered_json summaries_to_json(const Evaluation& e, std::span<const EvaluationTarget> targets);

}  // namespace gsae
