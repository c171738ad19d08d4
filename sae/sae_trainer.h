#pragma once

#include <cstdint>

#include "kernels/graph.h"
#include "kernels/transfer.h"
#include "sae/dense_step.h"
#include "sae/recipe.h"

namespace gsae {

// Means over the steps since the last reading, in normalised units.
struct StepMetrics {
  int64_t rows = 0;
  double loss = 0;     // mse + penalty
  double mse = 0;      // mean |x_hat - x|^2
  double penalty = 0;  // mean over rows, lambda included
  double l0 = 0;
  double fvu = 0;    // sum |x_hat - x|^2 / sum |x - mean(x)|^2 over those rows
  int64_t dead = 0;  // latents that have not fired for `dead_window` rows
  double threshold_mean = 0, threshold_min = 0, threshold_max = 0;
  double lr = 0, lambda = 0;
};

// One SAE's training: state, workspace, schedules.
class SaeTrainer {
 public:
  SaeTrainer(Arena& arena, const Recipe& recipe, int64_t tile, int64_t width, int64_t latents, DType precision);

  const Recipe& recipe() const { return recipe_; }
  SaeState& state() { return state_; }
  DenseWorkspace& workspace() { return workspace_; }

  // A new start, from the rows in workspace().x; or from given parameters.
  void start(Context& ctx);
  void start(Context& ctx, const SaeParameters& given);

  // One step on the rows that workspace().x holds.
  void step(Context& ctx, int64_t step);

  // The metrics of the steps since they were last asked for: asked for, and, when they have come (on a GPU a little
  // later: training goes on meanwhile), taken. One at a time.
  bool request_metrics(Context& ctx, int64_t dead_window);  // false: there was no step since
  bool metrics_ready() const { return requested_.rows > 0 && log_.ready() && control_.ready(); }
  StepMetrics take_metrics();  // waits for them

  StepMetrics read_metrics(Context& ctx, int64_t dead_window) {
    request_metrics(ctx, dead_window);
    return take_metrics();
  }

 private:
  void start_control(Context& ctx);

  Recipe recipe_;
  SaeState state_;
  DenseWorkspace workspace_;
  Graph graph_;
  Upload rates_, scale_;
  Readback log_, control_;
  bool prepared_ = false;  // the four above
  StepMetrics requested_;  // what the host knew when it asked; rows 0: nothing was asked for
  int64_t rows_since_read_ = 0;
  int64_t last_step_ = 0;
};

// The SAE for raw activations, without a pre-encoder bias, in `folded` (host memory):
//   W_enc, W_dec as they are, b_enc' = C (b_enc - b_dec W_enc), b_dec' = C b_dec, theta' = C theta.
void fold(Context& ctx, const SaeParameters& folded, const SaeParameters& trained, double C);

}  // namespace gsae
