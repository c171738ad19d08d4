#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tools/checkpoint.h"
#include "tools/run.h"
#include "tools/training_state.h"

namespace gsae {

// Whether the run in that folder has finished; that is said, and what it does not need any more is removed.
bool has_finished(const std::string& run);

// Where a run goes on: the newest of its checkpoints that is whole. Neither: it was stopped before the first one.
struct ResumePoint {
  std::unique_ptr<Checkpoint> checkpoint;
  std::optional<TrainingState> state;
};

// Of the run that --resume names. Damaged checkpoints are named on standard error. An Error if all are, if the data or
// the model have changed since, or if the run read standard input; a UsageError if more steps are done than are asked
// for.
ResumePoint find_resume_point(const Run& run, Device device);

}  // namespace gsae
