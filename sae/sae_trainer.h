#pragma once

#include <cstdint>
#include <optional>

#include "kernels/graph.h"
#include "kernels/transfer.h"
#include "sae/recipe.h"
#include "sae/sae_parameters.h"
#include "sae/sae_state.h"
#include "sae/step_workspace.h"

namespace gsae {

// Means over the steps since the last reading, in normalised units.
struct StepMetrics {
  int64_t rows = 0;
  double loss = 0;               // mse + penalty
  double mse = 0;                // mean |x_hat - x|^2
  double penalty = 0;            // mean over rows, lambda included
  double l0 = 0, target_l0 = 0;  // and what it was to be in the last of them; 0: none
  double fvu = 0;                // sum |x_hat - x|^2 / sum |x - mean(x)|^2 over those rows
  int64_t dead = 0;              // latents that have not fired for `dead_window` rows
  double threshold_mean = 0, threshold_min = 0, threshold_max = 0;
  double lr = 0, lambda = 0;
  int64_t sparse_rows = 0;  // of rows: those of exactly sparse steps
  double entries = 0;       // mean over those: active latents and those in theta's window
};

// Which kind of step is taken: the one that the number of entries makes the faster, or always one of them.
// A sparse step whose entries do not fit the lists is dense all the same.
enum class StepKind { kAuto, kDense, kSparse };

// One SAE's training: state, schedules, and a view of the workspace that it shares with the other SAEs of a run.
class SaeTrainer {
 public:
  SaeTrainer(Arena& state, Arena& workspace, const Recipe& recipe, const StepSizes& sizes, int64_t width,
             int64_t latents, DType precision, StepKind kind = StepKind::kAuto);

  const Recipe& recipe() const { return recipe_; }
  SaeState& state() { return state_; }
  StepWorkspace& workspace() { return workspace_; }

  // A new start, from the rows in workspace().x; or from given parameters, in the host's memory.
  void start(Context& ctx);
  void start(Context& ctx, const SaeParameters& given);

  // What another process needs beside state().persistent() to take the next steps as this one would, to the bit, and to
  // report them. Not between request_metrics() and take_metrics().
  struct Progress {
    bool sparse = false;                // the next step is meant to be
    std::optional<double> reviewed_l0;  // asked for, to choose the kind of the steps that come
    int64_t rows = 0, sparse_rows = 0;  // since the last metrics
    double entries = 0;
    int64_t last_step = 0;
  };
  Progress progress();
  void resume(Context& ctx, const Progress& progress);  // once the persistent tensors are there

  // One step on the rows that workspace().x holds.
  void step(Context& ctx, int64_t step);
  bool sparse() const { return sparse_; }  // the next step is meant to be

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
  void prepare(Context& ctx);
  void send_schedules(Context& ctx, int64_t step);
  void dense(Context& ctx);
  bool try_sparse(Context& ctx);
  void review(Context& ctx, int64_t step);

  Recipe recipe_;
  StepSizes sizes_;
  StepKind kind_;
  SaeState state_;
  StepWorkspace workspace_;
  Graph dense_graph_, find_graph_, sparse_graph_;
  Upload rates_, schedule_, clock_;
  Readback log_, control_, count_, step_l0_;
  bool prepared_ = false;  // those above
  bool sparse_ = false;
  bool reviewing_ = false;             // step_l0_ was asked for
  std::optional<double> reviewed_l0_;  // and has come already
  StepMetrics requested_;              // what the host knew when it asked; rows 0: nothing was asked for
  StepMetrics since_;                  // likewise, of the steps since
  int64_t last_step_ = 0;
};

// The SAE for raw activations, without a pre-encoder bias, in `folded` (host memory), W_enc as files have it:
//   W_enc, W_dec as they are, b_enc' = C (b_enc - b_dec W_enc), b_dec' = C b_dec, theta' = C theta.
void fold(Context& ctx, const SaeParameters& folded, const SaeState& trained, double C);

}  // namespace gsae
