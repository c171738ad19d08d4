#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "io/token_stream.h"
#include "model/gemma2.h"
#include "sae/evaluation.h"
#include "sae/sae_file.h"
#include "tools/progress.h"

namespace gsae {

// One SAE and the place where it reads. Its parameters come when its turn does: a suite need not fit into memory.
struct EvaluationTarget {
  std::string name = {};  // in tables
  Site site = Site::kRes;
  int64_t layer = 0;
  int64_t width = 0, latents = 0;             // d, F
  double l0 = 0;                              // that was asked for; 0: not known
  std::function<LoadedSae()> load = nullptr;  // folded
};

struct EvaluationOptions {
  int64_t contexts = 2048;  // fewer if the data hold fewer
  // Of those, the first so many have their LM losses measured, which takes a forward pass for each SAE, two for each
  // place, from its layer on, and one for the model. On the others all SAEs share one pass, which stops at the last
  // site.
  int64_t loss_contexts = std::numeric_limits<int64_t>::max();
  // Of parameters that are on the device at a time. SAEs that are more are evaluated in groups, on the same contexts:
  // each a whole evaluation, with the figures that one of all of them would have.
  int64_t bytes = std::numeric_limits<int64_t>::max();
};

// What an SAE does to the model's predictions. Losses in nats per predicted token, over all positions
// but those whose next token is padding; L_clean the model's own loss, L_spliced with x_hat in place
// of x, L_zero and L_mean with zero and with the mean of x in place of it. BOS, EOS and padding keep
// their x in each. Differences are paired by context.
struct LossMetrics {
  Estimate spliced;         // L_spliced
  Estimate delta;           // L_spliced - L_clean
  Estimate delta_zero;      // L_zero - L_clean
  Estimate delta_mean;      // L_mean - L_clean
  Estimate recovered_zero;  // (L_zero - L_spliced) / (L_zero - L_clean)
  Estimate recovered_mean;  // (L_mean - L_spliced) / (L_mean - L_clean)
};

struct Evaluation {
  struct Sae {
    SaeMetrics metrics;
    LossMetrics loss;  // where there are losses
  };
  int64_t contexts = 0, context = 0;  // evaluated; tokens each
  int64_t loss_contexts = 0;          // those with losses
  int64_t predicted = 0;              // tokens that the losses are about
  Estimate lm_loss;                   // L_clean
  std::vector<Sae> saes;              // in the order of the targets

  bool has_losses() const { return loss_contexts > 0; }
};

// The device memory of an evaluation, beside the model's own activations.
struct EvaluationMemory {
  EvaluationMemory(Arena& arena, const Gemma2& model, int64_t B, int64_t T, std::span<const EvaluationTarget> targets);

  EvaluationWorkspace workspace;
  Tensor tokens;    // (B * T)    i32
  Tensor nll;       // (B * T)    f32
  Tensor residual;  // (B * T, d) f32, of the model, before the layer whose sites are spliced
};

// The mean for the mean ablation is that of x at the counted positions of the first contexts, at most
// this many; it is also the centre about which variances are summed.
constexpr int64_t kMeanContexts = 64;

// Evaluates on the next contexts of `stream`, a.B at a time; their tokens are kept meanwhile. An Error if it holds
// none.
Evaluation evaluate(Context& ctx, const Gemma2& model, Gemma2::Activations& a, EvaluationMemory& memory,
                    TokenStream& stream, std::span<const EvaluationTarget> targets, const EvaluationOptions& options,
                    Progress& progress);

// {"value": ..., "standard_error": ...}; what is not defined is null.
nlohmann::ordered_json to_json(const Estimate& e);
nlohmann::ordered_json to_json(const Evaluation& e);                 // the model's part
nlohmann::ordered_json to_json(const Evaluation& e, size_t target);  // that of one SAE

// A table for a terminal, with standard errors; the targets are those evaluated. Up to four SAEs are a column each;
// more are a row each, by place, width and L0, the figures of a Pareto front below each other.
std::string evaluation_table(const Evaluation& e, std::span<const EvaluationTarget> targets);
// Two more: L0 and FVU by position in the context; and, if there are several, by place. There is at least one SAE.
std::string evaluation_summaries(const Evaluation& e, std::span<const EvaluationTarget> targets);

}  // namespace gsae
