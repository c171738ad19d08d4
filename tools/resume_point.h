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
  bool lines_lost = false;  // train.jsonl does not have what the state counts on, which counts on what there is now
};

// Of the run that --resume names. Damaged checkpoints, and those that count on more of train.jsonl than there is, are
// named on standard error; of the latter the newest is taken if there is nothing better, as a log is worth less than a
// run. An Error if all are damaged, if the data or the model have changed since, or if the run read standard input; a
// UsageError if more steps are done than are asked for.
ResumePoint find_resume_point(const Run& run, Device device);

}  // namespace gsae
