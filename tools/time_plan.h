#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"
#include "tools/device_preset.h"
#include "tools/run_plan.h"
#include "tools/step_cost.h"

namespace gsae {

// The part of its roof that a run is expected to reach: what docs/design.md sets as a goal.
constexpr double kExpectedReach = 0.75;

// The time of one pass over the data, by the cost model of docs/planning.md. Seconds for an activation that is trained
// on (at each place), at the roofs.
struct TimePlan {
  double flops_per_token = 0;   // of the forward pass
  double forward = 0;           // BOS is computed too, but not trained on
  std::vector<StepTime> steps;  // of each SAE
  int64_t sparse = 0;           // of them: how many are exactly sparse
  StepTime saes;                // their sum

  double roof() const { return 1 / (forward + saes.total()); }  // activations/s
  double expected() const { return kExpectedReach * roof(); }
  const char* bound() const;  // "forward", or what bounds the steps
};
TimePlan plan_time(const GemmaConfig& config, const RunChoices& choices, const DeviceSpeed& speed);

// Whether the device's speed is known: that of an emulated GPU is not.
bool known(const DeviceSpeed& speed);

}  // namespace gsae
