#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tools/run_plan.h"

namespace gsae {

// One change that makes a run fit, alone.
struct Remedy {
  std::string change;  // "--buffer 200k"
  int64_t saves = 0;   // bytes
};

// For a run that does not fit: up to `most` changes, each of which is enough, with the largest value that fits; those
// that cost least first:
//   --buffer               another order of the same rows
//   --model-batch          a slower forward pass
//   --dtype, --precision   f32 to bf16, where that is smaller
//   --passes               a forward pass more for each
//   --batch                another run: fewer rows of a step
//   --context              what the model has seen
//   --width                other SAEs
std::vector<Remedy> cheapest_ways(const RunChoices& choices, const Planner& plan, size_t most = 3);

// "the cheapest ways to make it fit: ...", for MemoryPlan::check; how much is missing if there is none.
std::string describe_ways(const std::vector<Remedy>& ways, const MemoryPlan& plan);

}  // namespace gsae
