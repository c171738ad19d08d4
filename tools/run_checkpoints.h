#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "tools/checkpoint.h"
#include "tools/training_state.h"

namespace gsae {

// When a run saves its state, and what has become of that.
class RunCheckpoints {
 public:
  struct Schedule {
    double seconds = 0;  // between checkpoints; 0: not by time
    double share = 1;    // at most so much of that time in the step's wait for one: where it is longer, so are they
    int64_t tokens = 0;  // likewise by tokens
    int64_t keep = 2;
  };
  // run: what the passes share; the rest of the state is given each time
  RunCheckpoints(std::string folder, const Schedule& schedule, TrainingState run)
      : schedule_(schedule), run_(std::move(run)), writer_(std::move(folder), schedule.keep) {}

  // The state that passes share, for one to fill in.
  const TrainingState& run() const { return run_; }
  void add_result(const TrainingState::Result& result) { run_.results.push_back(result); }

  // Whether to save after `tokens` of a pass, `batch` of them in the last step.
  bool due(int64_t tokens, int64_t batch) const;
  struct Saved {
    bool done = true;   // as far as is known
    std::string error;  // of this one, or of the one before, which was still on its way; training can go on
  };
  // now: waits until it is on the disk.
  Saved save(Context& ctx, const TrainingState& state, const NamedTensors& tensors, bool now);

  // One that cannot be, for a reason of another kind.
  Saved fail(std::string error) { return {false, count(std::move(error))}; }

  int64_t failures() const { return failures_; }

 private:
  using Clock = std::chrono::steady_clock;
  static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  std::string count(std::string error);  // among the failures, if it is one

  Schedule schedule_;
  TrainingState run_;
  CheckpointWriter writer_;
  Clock::time_point last_ = Clock::now();
  double waited_ = 0;  // of the step, in seconds, for the one before
  int64_t failures_ = 0;
};

}  // namespace gsae
