#include "tools/resume_point.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>

#include "tools/console.h"
#include "tools/options.h"
#include "tools/run_file.h"
#include "tools/run_folder.h"

namespace gsae {

namespace {

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

// train.jsonl of a run, as far as it is there.
class Log {
 public:
  explicit Log(const std::string& run) : file_(run + "/train.jsonl", std::ios::binary | std::ios::ate) {
    if (file_) bytes_ = file_.tellg();
  }
  int64_t bytes() const { return bytes_; }
  // Whether so many bytes of it are whole lines.
  bool holds(int64_t n) { return n == 0 || (n <= bytes_ && file_.seekg(n - 1) && file_.get() == '\n'); }
  int64_t whole_lines() {
    int64_t n = bytes_;
    while (!holds(n)) --n;
    return n;
  }

 private:
  std::ifstream file_;
  int64_t bytes_ = 0;
};

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
  Log log(path);
  ResumePoint without_log;
  for (const std::string& name : names) {
    ResumePoint point;
    try {
      point.checkpoint = std::make_unique<Checkpoint>(folder + "/" + name);
      point.state = training_state(point.checkpoint->record(), point.checkpoint->path());
      check_fits(*point.state, run.saes.size(), point.checkpoint->path());
    } catch (const Error& e) {
      print(stderr, fmt::format("{}; trying the checkpoint before it\n", e.what()));
      continue;
    }
    if (!log.holds(point.state->log_bytes)) {
      print(stderr, fmt::format("{}: counts on {} bytes of train.jsonl, which has {}: it was changed since; trying the "
                                "checkpoint before it\n",
                                point.checkpoint->path(), point.state->log_bytes, log.bytes()));
      if (!without_log.state) without_log = std::move(point);
      continue;
    }
    check_inputs(*point.state, run, device, point.checkpoint->path());
    return point;
  }
  if (without_log.state) {
    const std::string& newest = without_log.checkpoint->path();
    print(stderr, fmt::format("{}: is taken nevertheless; lines of train.jsonl are lost\n", newest));
    check_inputs(*without_log.state, run, device, newest);
    without_log.state->log_bytes = log.whole_lines();
    without_log.lines_lost = true;
    return without_log;
  }
  if (!names.empty())
    throw Error(fmt::format(
        "{}: none of its checkpoints can be used; the run must be started again, with another --out", path));
  return {};
}

}  // namespace gsae
