#include "tools/run_checkpoints.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace gsae {

bool RunCheckpoints::due(int64_t tokens, int64_t batch) const {
  if (writer_.writing()) return false;  // a disk that is too slow for the schedule sets its own
  if (schedule_.tokens > 0) return tokens / schedule_.tokens > (tokens - batch) / schedule_.tokens;
  return schedule_.seconds > 0 && seconds_since(last_) >= std::max(schedule_.seconds, waited_ / schedule_.share);
}

std::string RunCheckpoints::count(std::string error) {
  failures_ += error.empty() ? 0 : 1;
  return error;
}

RunCheckpoints::Saved RunCheckpoints::save(Context& ctx, const TrainingState& state, const NamedTensors& tensors,
                                           bool now) {
  const std::string of_last = count(writer_.wait());
  last_ = Clock::now();
  std::string error;
  try {
    writer_.write(ctx, checkpoint_name(state.pass, int64_t(state.passes.size()), state.step), tensors, to_json(state));
    if (now) error = count(writer_.wait());
  } catch (const Error& e) {
    error = count(e.what());
  }
  waited_ = seconds_since(last_);
  return {error.empty(), error.empty() ? of_last : error};
}

}  // namespace gsae
