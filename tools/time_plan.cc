#include "tools/time_plan.h"
#include "tools/model_source.h"

#include <algorithm>
#include <cmath>

namespace gsae {

const char* TimePlan::bound() const {
  return forward >= std::max({saes.products, saes.optimizer, saes.gathers, saes.cached}) ? "forward" : saes.bound();
}

TimePlan plan_time(const GemmaConfig& config, const RunChoices& c, const DeviceSpeed& speed) {
  TimePlan plan;
  const double T = double(c.context);
  for (const SaeShape& s : c.saes)
    plan.flops_per_token =
        std::max(plan.flops_per_token, forward_flops_per_token(config, c.context, s.place.site, s.place.layer));
  plan.forward = plan.flops_per_token / speed.model_products * T / (T - 1);
  const StepRoofs roofs{speed.sae_products, speed.memory, speed.cache};
  for (const SaeShape& s : c.saes) {
    StepTime step = step_time(c.batch, s.width, s.latents, s.l0, c.precision, roofs);
    for (double* part : {&step.products, &step.optimizer, &step.gathers, &step.cached}) *part /= double(c.batch);
    plan.sparse += step.sparse;
    plan.saes.products += step.products, plan.saes.optimizer += step.optimizer;
    plan.saes.gathers += step.gathers, plan.saes.cached += step.cached;
    plan.steps.push_back(step);
  }
  return plan;
}

bool known(const DeviceSpeed& s) {
  return std::isfinite(s.model_products) && std::isfinite(s.sae_products) && std::isfinite(s.memory) &&
         std::min({s.model_products, s.sae_products, s.memory, s.cache}) > 0;
}

}  // namespace gsae
