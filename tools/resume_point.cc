#include "tools/resume_point.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "tools/console.h"
#include "tools/options.h"
#include "tools/run_file.h"
#include "tools/run_folder.h"

namespace gsae {

namespace {

// Whether the state is one of this suite: it comes from a file.
void check_passes(const TrainingState& s, size_t saes, const std::string& path) {
  std::vector<bool> seen(saes);
  for (const TrainingState::PassSizes& pass : s.passes) {
    if (pass.saes.empty() || pass.buffer_rows < 1 || pass.contexts < 0)
      throw Error(fmt::format("{}: has a pass of {} SAEs, {} rows of the buffer and {} contexts", path,
                              pass.saes.size(), pass.buffer_rows, pass.contexts));
    for (const size_t sae : pass.saes) {
      if (sae >= saes || seen[sae])
        throw Error(fmt::format("{}: its passes do not hold each of the run's {} SAEs once", path, saes));
      seen[sae] = true;
    }
  }
  const auto passes = static_cast<int64_t>(s.passes.size());
  if (std::find(seen.begin(), seen.end(), false) != seen.end() || s.pass < 1 || s.pass > passes + 1 || s.log_bytes < 0)
    throw Error(fmt::format("{}: its record does not fit the run: pass {} of {}, {} bytes of log", path, s.pass, passes,
                            s.log_bytes));
}

// Whether the run that is asked for is the one whose state this is.
void check_inputs(const TrainingState& s, const Run& run, Device device, const std::string& path) {
  if (s.step > run.plan.steps)
    throw UsageError(fmt::format("--tokens: {} steps are done, and {} are asked for now", s.step, run.plan.steps));
  for (const FileStamp& was : s.inputs)
    if (stamp_file(was.path) != was)
      throw Error(fmt::format("{}: {} has changed since: the run cannot go on as it began", path, was.path));
  if (s.device != name(device))
    print(stderr, fmt::format("the run was on {} and goes on on {}: its bits will differ from here on\n", s.device,
                              name(device)));
}

}  // namespace

bool has_finished(const std::string& run) {
  if (!read_run_file(run).finished) return false;
  remove_states(run);  // it may have been killed when it was at that
  print(stdout, fmt::format("{}: this run has finished\n", run));
  return true;
}

ResumePoint find_resume_point(const Run& run, Device device) {
  const std::string &path = run.options.resume, folder = path + "/checkpoints";
  if (!run.can_go_on)
    throw Error(fmt::format("{}: the run read standard input, which cannot be read again: start a new one", path));
  const std::vector<std::string> names = list_checkpoints(folder);
  for (const std::string& name : names) {
    ResumePoint point;
    try {
      point.checkpoint = std::make_unique<Checkpoint>(folder + "/" + name);
      point.state = training_state(point.checkpoint->record(), point.checkpoint->path());
      check_passes(*point.state, run.saes.size(), point.checkpoint->path());
    } catch (const Error& e) {
      print(stderr, fmt::format("{}; trying the checkpoint before it\n", e.what()));
      continue;
    }
    check_inputs(*point.state, run, device, point.checkpoint->path());
    return point;
  }
  if (!names.empty())
    throw Error(fmt::format(
        "{}: none of its checkpoints can be used; the run must be started again, with another --out", path));
  return {};
}

}  // namespace gsae
