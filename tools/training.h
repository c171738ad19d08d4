#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/stopwatch.h"
#include "sae/activation_buffer.h"
#include "sae/sae_trainer.h"
#include "tools/progress.h"
#include "tools/row_source.h"
#include "tools/run_folder.h"
#include "tools/saved_parameters.h"
#include "tools/train_options.h"

namespace gsae {

// What `train` has decided and found out.
struct Run {
  TrainOptions options;
  TrainPlan plan;
  Recipe recipe;
  std::string model_folder;  // empty: saved activations
  std::vector<std::string> data_files;
  int64_t layer = 0;
  Site site = Site::kRes;
  const SuiteMember& sae() const { return plan.members[0]; }
  double C = 0;                         // divides the activations; 0: not calibrated yet
  double model_peak = 0, sae_peak = 0;  // FLOP/s that this device reaches in their products

  int64_t steps_done = 0;
  double l0 = 0;        // mean over the last tenth of the steps, in whole intervals of the log
  double lambda = 0;    // of the last step
  std::string stopped;  // why the run ended early, if it did and something was trained
};

// The main loop: rows in, steps, metrics out.
class Training {
 public:
  // given: the parameters to start from, if any; they are given back once copied
  Training(Context& ctx, Run& run, RowSource& source, ActivationBuffer& buffer, SaeTrainer& trainer, RunFolder& folder,
           std::unique_ptr<SavedParameters> given);

  // Fills the buffer, finds C and the start, and takes the steps. After Ctrl-C, or when the data end or turn out to be
  // damaged, fewer than planned: run.stopped says why. Interrupted or an Error if nothing has been trained by then, and
  // an Error if the loss is not finite any more.
  void run();

 private:
  using Clock = std::chrono::steady_clock;

  void refill();
  bool try_refill();
  void prepare();
  void request_report(int64_t done);
  void report();
  void profile(int64_t step);
  void show_progress(int64_t done);
  double seconds_at_the_roof();
  int64_t dead_window() const;

  Context& ctx_;
  Run& run_;
  RowSource& source_;
  ActivationBuffer& buffer_;
  SaeTrainer& trainer_;
  RunFolder& folder_;
  std::unique_ptr<SavedParameters> given_;
  Progress progress_;

  int64_t arrived_ = 0, epoch_ = 0;  // rows so far; passes over the data
  Clock::time_point start_;          // of the run, its first fill included
  Stopwatch model_time_, sae_time_;  // of the device
  int64_t model_rows_ = 0;           // during model_time_
  int64_t reported_ = 0;             // steps done when the report on its way was asked for; 0: none is
  double tail_l0_ = 0;               // sum over the rows of the last tenth
  int64_t tail_rows_ = 0;
  bool log_failed_ = false;
  StepMetrics last_;  // of the last report
};

}  // namespace gsae
