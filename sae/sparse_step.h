#pragma once

#include "kernels/context.h"
#include "sae/recipe.h"
#include "sae/sae_state.h"
#include "sae/step_workspace.h"

namespace gsae {

// One step on the rows of w.x, exactly sparse: the same loss and gradients as dense_step, but everything behind the
// encoder's product costs in proportion to the entries of z that are active or in theta's window (kernels/entries.h).
// Two parts, because between them the host decides by the number of entries (w.sparse.entries.count) whether they fit.

// z = (x - b_dec) W_enc + b_enc, tile by tile of latents, and what the rest of the step needs of it.
void find_entries(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe);

// The rest, from entries that fit.
void sparse_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe);

}  // namespace gsae
