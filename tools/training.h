#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/stopwatch.h"
#include "sae/activation_buffer.h"
#include "sae/outlier_watch.h"
#include "sae/sae_suite.h"
#include "tools/progress.h"
#include "tools/row_source.h"
#include "tools/run.h"
#include "tools/run_checkpoints.h"
#include "tools/run_folder.h"
#include "tools/saved_parameters.h"
#include "tools/suite_table.h"

namespace gsae {

// The main loop: rows in, steps, metrics out.
class Training {
 public:
  // given: the parameters to start from, if any; they are given back once copied
  Training(Context& ctx, Run& run, Pass& pass, RowSource& source, ActivationBuffer& buffer, SaeSuite& suite,
           RunFolder& folder, RunCheckpoints& checkpoints, std::shared_ptr<SavedParameters> given);

  // Goes on from there; `source` is there already. An Error if it is not of such a run. Before run().
  void resume(const Checkpoint& checkpoint, const TrainingState& state);

  // Fills the buffer, finds each place's C and each SAE's start, and takes the steps. After Ctrl-C, or when the data
  // end or turn out to be damaged, fewer than planned: pass.stopped says why. Interrupted or an Error if nothing has
  // been trained by then, and an Error if a loss is not finite any more. Saves its state now and then, and when it is
  // interrupted.
  void run();

 private:
  using Clock = std::chrono::steady_clock;

  void refill();
  bool try_refill();
  void prepare();
  void check_rows(std::optional<OutlierWatch::Broken> broken);
  void check_losses();
  [[noreturn]] void fail_interrupted() const;
  [[noreturn]] void fail_diverged(int64_t sae, double loss, int64_t step);
  NamedTensors tensors(TrainingState& s, RowOrigins::State& origins);
  TrainingState state();
  void resume_rows(const Checkpoint& checkpoint, const TrainingState& state);
  void save(bool now);
  void request_report(int64_t done);
  bool report_ready();
  std::vector<SuiteStatus> statuses() const;
  void report();
  void report_outliers();
  void log(int64_t done);
  void profile(int64_t step);
  void show_progress(int64_t done);
  double seconds() const;  // of the pass so far
  double seconds_at_the_roof();
  int64_t dead_window() const;

  Context& ctx_;
  Run& run_;
  Pass& pass_;
  RowSource& source_;
  ActivationBuffer& buffer_;
  SaeSuite& suite_;
  RunFolder& folder_;
  RunCheckpoints& checkpoints_;
  std::shared_ptr<SavedParameters> given_;
  Progress progress_;

  int64_t arrived_ = 0, epoch_ = 0;  // rows so far; passes over the data
  Clock::time_point start_;          // of the pass, its first fill included
  TrainingState before_;             // what a process before this one had done; step 0: nothing
  Stopwatch model_time_, sae_time_;  // of the device
  int64_t model_rows_ = 0;           // during model_time_
  double sae_flops_ = 0;             // during sae_time_, up to the last report
  int64_t reported_ = 0;             // steps done when the report on its way was asked for; 0: none is
  struct Tail {
    double l0 = 0;  // sum over the rows of the last tenth
    int64_t rows = 0;
  };
  std::vector<Tail> tails_;        // of the SAEs
  std::vector<StepMetrics> last_;  // of the last report
  OutlierWatch outliers_;          // of the places
  bool broken_ = false;            // rows that hold NaN or infinity have come
  bool log_failed_ = false;
};

// The tokens of a source's position, of which the record has the rest.
void load_tokens(const Checkpoint& checkpoint, SourcePosition& source);

}  // namespace gsae
