#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tools/plan_options.h"
#include "tools/remedies.h"
#include "tools/time_plan.h"

namespace gsae {

// One pass over the data: which SAEs, and what it takes.
struct PlannedPass {
  RunChoices choices;  // its SAEs
  RunPlan plan;
  TimePlan time;
};

// All that `plan` says.
struct PlanReport {
  PlannedRun run;
  PlannedMachine machine;
  PlannedPass whole;                // everything at once
  std::vector<Remedy> ways;         // if that does not fit
  std::vector<PlannedPass> passes;  // the same; none if no number of passes is enough

  bool fits() const { return whole.plan.memory.fits(); }
};

PlanReport make_plan(const PlannedRun& run, const PlannedMachine& machine);

std::string plan_text(const PlanReport& report);
nlohmann::ordered_json plan_json(const PlanReport& report);

}  // namespace gsae
