#include "tools/evaluation_summary.h"

#include <map>

namespace gsae {

namespace {

bool same_place(const EvaluationTarget& a, const EvaluationTarget& b) { return a.site == b.site && a.layer == b.layer; }

// (a, b) against (c, d): nowhere worse and somewhere better.
bool dominates(double a, double b, double c, double d) { return a <= c && b <= d && (a < c || b < d); }

}  // namespace

std::vector<Dominated> pareto(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  std::vector<Dominated> result(targets.size());
  for (size_t i = 0; i < targets.size(); ++i)
    for (size_t k = 0; k < targets.size(); ++k) {
      if (!same_place(targets[i], targets[k])) continue;
      const auto &mine = e.saes[i], &other = e.saes[k];
      const double l0 = mine.metrics.l0.value, other_l0 = other.metrics.l0.value;
      result[i].fvu |= dominates(other_l0, other.metrics.fvu.value, l0, mine.metrics.fvu.value);
      result[i].delta_loss |= e.has_losses() && dominates(other_l0, other.loss.delta.value, l0, mine.loss.delta.value);
    }
  return result;
}

std::vector<PlaceSummary> by_place(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  std::map<std::pair<int64_t, Site>, PlaceSummary> places;
  for (size_t i = 0; i < targets.size(); ++i) {
    PlaceSummary& p = places[{targets[i].layer, targets[i].site}];
    p.site = targets[i].site, p.layer = targets[i].layer, ++p.saes;
    p.l0 += e.saes[i].metrics.l0.value, p.fvu += e.saes[i].metrics.fvu.value;
    p.delta_loss += e.saes[i].loss.delta.value, p.loss_recovered += e.saes[i].loss.recovered_zero.value;
  }
  std::vector<PlaceSummary> list;
  for (auto& [place, p] : places) {
    for (double* sum : {&p.l0, &p.fvu, &p.delta_loss, &p.loss_recovered}) *sum /= double(p.saes);
    list.push_back(p);
  }
  return list;
}

nlohmann::ordered_json summaries_to_json(const Evaluation& e, std::span<const EvaluationTarget> targets) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array(), front = nlohmann::ordered_json::array();
  for (const PlaceSummary& p : by_place(e, targets)) {
    layers.push_back({{"layer", p.layer}, {"site", name(p.site)}, {"saes", p.saes}, {"l0", p.l0}, {"fvu", p.fvu}});
    if (e.has_losses()) layers.back()["delta_loss"] = p.delta_loss, layers.back()["loss_recovered"] = p.loss_recovered;
  }
  const std::vector<Dominated> dominated = pareto(e, targets);
  for (size_t i = 0; i < targets.size(); ++i) {
    nlohmann::ordered_json sae{{"sae", targets[i].name},
                               {"l0", e.saes[i].metrics.l0.value},
                               {"fvu", e.saes[i].metrics.fvu.value},
                               {"dominated_in_fvu", dominated[i].fvu}};
    if (e.has_losses())
      sae["delta_loss"] = e.saes[i].loss.delta.value, sae["dominated_in_delta_loss"] = dominated[i].delta_loss;
    front.push_back(std::move(sae));
  }
  return {{"by_layer", layers}, {"pareto", front}};
}

}  // namespace gsae
