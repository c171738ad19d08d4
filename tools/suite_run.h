#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "tools/run_plan.h"
#include "tools/trained_sae.h"
#include "tools/training.h"

namespace gsae {

// Where the rows come from, and what else depends on it.
struct RunSource {
  RunChoices choices;  // but for the SAEs, which are those of a pass
  Planner plan;
  // from: where it was when its state was saved; null: at its beginning
  std::function<std::unique_ptr<RowSource>(const Pass& pass, const RunPlan& plan, Buffer& memory,
                                           const SourcePosition* from)>
      open;
  // bytes: of parameters that fit on the device at a time. Empty: there is nothing to evaluate on
  std::function<void(std::vector<TrainedSae>&, const RunPlan&, int64_t bytes)> evaluate;
};

// A training run, from its plan to its results: the suite in as many passes over the data as it takes, each from where
// an earlier process had stopped, if the run is one that goes on. What it says on the way is for people.
void run_suite(Context& ctx, Run& run, RunSource source);

}  // namespace gsae
