#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "sae/estimate.h"
#include "sae/inference.h"
#include "sae/sae_parameters.h"

namespace gsae {

// The same of the tokens from one position of their contexts to another. Variances are about the centre that
// SaeEvaluation was given, the mean of x as well as the first contexts tell it.
struct PositionMetrics {
  int64_t from = 0, to = 0;  // both included
  int64_t tokens = 0;
  Estimate l0, fvu;
};

// How well an SAE reconstructs its site. N tokens in C contexts, special positions not among them;
// sums in f64; standard errors over contexts (estimate.h).
struct SaeMetrics {
  int64_t tokens = 0, contexts = 0;
  Estimate l0;                               // mean number of latents with f > 0
  Estimate fvu;                              // sum |x_hat - x|^2 / sum |x - mean(x)|^2, the mean that of these tokens
  Estimate mse;                              // mean of |x_hat - x|^2, summed over the width
  Estimate cosine;                           // mean of x . x_hat / (|x| |x_hat|); 0 where either is zero
  Estimate norm_ratio;                       // mean of |x_hat| / |x|, over tokens with |x| > 0
  std::vector<int64_t> fired;                // (F) tokens on which each latent fired
  std::vector<PositionMetrics> by_position;  // positions 0, 1, 2-3, 4-7, 8-15, ... that have tokens

  int64_t latents() const { return static_cast<int64_t>(fired.size()); }
  int64_t dead() const;  // latents that never fired
};

// The rows of one batch that count: their places in it and the context that each belongs to.
struct CountedRows {
  Tensor index;                            // (n) i32, on the device, ascending
  std::span<const int32_t> context;        // (n) 0, 1, ... within the batch, ascending
  int64_t contexts = 0;                    // of the batch
  std::span<const int32_t> position = {};  // (n) within the context; empty: not asked for
};

// Device memory that the SAEs of an evaluation share: for batches of up to `rows` rows, SAEs of up to
// `width` and `latents`.
struct EvaluationWorkspace {
  EvaluationWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t latents);

  Tensor x, x_hat;      // (rows * width) f32
  Tensor metrics;       // (rows * 5)     f64
  Tensor l0;            // (rows)         f32
  Tensor fired;         // (latents)      i32
  Tensor sum, square;   // (width), (1)   f64
  Tensor index, zeros;  // (rows)         i32
  Tensor centre;        // (width)        f32
  ReconstructionWorkspace sae;
};

// The first n rows of a workspace's flat tensor, as (n, width).
Tensor shaped(Tensor flat, int64_t n, int64_t width);

// Streaming sums over one site's rows: their mean.
class SiteMean {
 public:
  explicit SiteMean(int64_t width) : sum_(static_cast<size_t>(width)) {}
  void add(Context& ctx, Tensor rows, Tensor index, const EvaluationWorkspace& workspace);
  std::vector<float> mean() const;  // zeros if nothing was added

 private:
  std::vector<double> sum_;
  int64_t count_ = 0;
};

// Streaming evaluation of one SAE, batch by batch, each context within one batch.
class SaeEvaluation {
 public:
  // centre: a guess of the mean of x, about which variances are summed. It changes no result but by
  // rounding; the nearer to the mean, the less. Its error makes the standard error of the FVU
  // approximate, to second order.
  SaeEvaluation(const SaeParameters& params, std::vector<float> centre);

  // rows: (n of the batch, d), f32 or bf16; with `splice`, f32, and counted rows become x_hat.
  void add(Context& ctx, Tensor rows, const CountedRows& counted, EvaluationWorkspace& workspace, bool splice);

  SaeMetrics result() const;

 private:
  void add_to_host(Context& ctx, const CountedRows& counted, const EvaluationWorkspace& workspace);

  SaeParameters params_;
  std::vector<float> centre_;
  bool sparse_ = true;  // as reconstruct() found it
  struct Positions {
    int64_t tokens = 0;
    RatioSum l0, fvu;
  };

  RatioSum l0_, fvu_, mse_, cosine_, norm_ratio_;
  std::vector<Positions> positions_;  // by position_bucket()
  double error_ = 0, centred_ = 0;    // sum |x_hat - x|^2, sum |x - centre|^2
  std::vector<double> sum_;           // (d) sum of x
  std::vector<int64_t> fired_;        // (F)
  int64_t tokens_ = 0, contexts_ = 0;
};

}  // namespace gsae
