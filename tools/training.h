#pragma once

#include <chrono>
#include <cstdint>

#include "sae/activation_buffer.h"
#include "sae/sae_trainer.h"
#include "tools/progress.h"
#include "tools/row_source.h"
#include "tools/run_folder.h"
#include "tools/train_options.h"

namespace gsae {

// What `train` has decided and found out.
struct Run {
  TrainOptions options;
  TrainPlan plan;
  std::string model_folder;  // empty: saved activations
  int64_t layer = 0;
  Site site = Site::kRes;
  double C = 0;  // divides the activations; 0: not calibrated yet
  int64_t steps_done = 0;
  double l0 = 0;  // mean over the last tenth of the steps
};

// The main loop: rows in, steps, metrics out.
class Training {
 public:
  Training(Context& ctx, Run& run, RowSource& source, ActivationBuffer& buffer, SaeTrainer& trainer, RunFolder& folder);

  // Fills the buffer, finds C and the start, and takes the steps; fewer than planned after Ctrl-C.
  void run();

 private:
  using Clock = std::chrono::steady_clock;

  void refill();
  void prepare();
  void report(int64_t done);
  double seconds_at_the_roof();
  int64_t dead_window() const;

  Context& ctx_;
  Run& run_;
  RowSource& source_;
  ActivationBuffer& buffer_;
  SaeTrainer& trainer_;
  RunFolder& folder_;
  Progress progress_;

  int64_t arrived_ = 0, epoch_ = 0;  // rows so far; passes over the data
  Clock::time_point start_;          // of the first step
  double model_seconds_ = 0, sae_seconds_ = 0;
  int64_t model_rows_ = 0;                // during model_seconds_
  double model_peak_ = 0, sae_peak_ = 0;  // FLOP/s of this machine; 0: not measured yet
  double tail_l0_ = 0;                    // sum over the rows of the last tenth
  int64_t tail_rows_ = 0;
  bool log_failed_ = false;
};

}  // namespace gsae
