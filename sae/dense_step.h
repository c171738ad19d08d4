#pragma once

#include "kernels/context.h"
#include "sae/recipe.h"
#include "sae/sae_state.h"
#include "sae/step_workspace.h"

namespace gsae {

// One step on the rows of w.x with everything dense: the gradients of the loss (docs/design.md, section 4) by products
// over tiles, and Adam for every latent.
void dense_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe);

// What both kinds of step end with: b_dec's update, from w.grad_b_dec and w.pull_b_dec, the sums and counts of the
// rows and latents, and the revival of those that are silent.
void finish_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe);

}  // namespace gsae
