#pragma once

#include <span>
#include <string>
#include <vector>

#include "sae/sae_trainer.h"

namespace gsae {

// An SAE of a suite as its last report has it.
struct SuiteStatus {
  std::string name;
  int64_t latents = 0;  // F
  StepMetrics metrics;  // rows 0: there was no report yet
};

// What is wrong with an SAE: "the loss is nan"; an L0 more than 20 % off its target of then once a third of the run is over
// (`done`, from 0 to 1), by when a controller should have it; more than 20 % dead latents. Empty: nothing, as far as
// one can see.
std::string trouble_of(const SuiteStatus& sae, double done);

// For one progress line: "18 SAEs  FVU 0.110/0.152/0.301  L0/target 1.00/1.02/1.31  dead 0.0/0.4/3.1%  1 in trouble:
// NAME". Best, median, worst of each; of L0 by its ratio to the target, either side of it, and only of the SAEs that
// have one.
std::string suite_line(std::span<const SuiteStatus> suite, double done);

// At the end: the best, the median and the worst FVU, and whatever is in trouble, a row each with its name; of up to
// four SAEs all of them.
std::string suite_table(std::span<const SuiteStatus> suite, double done);

}  // namespace gsae
