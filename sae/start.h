#pragma once

#include "kernels/context.h"
#include "sae/recipe.h"
#include "sae/sae_parameters.h"
#include "sae/sae_state.h"
#include "sae/step_workspace.h"

namespace gsae {

// Where training starts. Both leave W_dec with unit rows, W_enc = W_dec (times a factor), b_enc = 0, and the bf16
// copies in step; second moments and counters are zero.
//
// As in Gemma Scope: He-uniform decoder rows scaled to unit norm, theta = recipe.threshold, no biases.
//
// From data (recipe.start == kData), on w.x, a batch of normalised activations: the same random rows, b_dec = the
// mean of x, one theta for all latents that leaves recipe.start_l0 of them active, and W_enc and theta scaled by the
// least-squares factor that makes x_hat match x. The tied unit-norm start reconstructs with a gain of about F / (2 d),
// so its first losses are hundreds of times too large and sit in Adam's second moment for a thousand steps; this
// one starts at a loss below that of the mean. Of a wide SAE theta comes from some of its latents: their rows are
// random, and as good as all.
void start_training(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe);

// Of the host's memory, that a start from data takes meanwhile.
int64_t start_bytes(const StepSizes& sizes, int64_t width);

// Copies given parameters (f32, normalised units, in the host's memory, W_enc as files have it) into the state; shapes
// must agree.
void start_from(Context& ctx, SaeState& s, const SaeParameters& given);

// The bf16 copies, from the f32 weights.
void refresh_copies(Context& ctx, SaeState& s);

}  // namespace gsae
