#include "sae/sparse_step.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/entries.h"
#include "kernels/latent_update.h"
#include "kernels/matmul.h"
#include "kernels/rows.h"
#include "kernels/sparse_decode.h"
#include "kernels/sparsity.h"
#include "sae/dense_step.h"
#include "sae/latent_options.h"

namespace gsae {

void find_entries(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe) {
  // A little wider than the window: what lies on its edge is decided once, where its gradient is.
  const float half = 0.505f * static_cast<float>(recipe.bandwidth);
  const int64_t F = s.latent_count(), tile = w.sparse.zt.dim[0];
  subtract_bias(ctx, w.centred, w.x, s.b_dec);
  clear_entries(ctx, w.sparse.entries);
  for (int64_t first = 0; first < F; first += tile) {
    const LatentState part = s.latents.rows(first, std::min(F, first + tile));
    const Tensor zt = w.sparse.zt.rows(0, part.p.latents());
    matmul(ctx, zt, encoder(part), w.centred, {.transpose_b = true, .tf32 = recipe.tf32});
    select_entries(ctx, w.sparse.entries, zt, part.p.b_enc, part.p.threshold, half, first);
  }
}

void sparse_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe) {
  const Entries& entries = w.sparse.entries;
  const int64_t batch = w.x.dim[0];
  fill_zero(ctx, w.grad_b_dec);
  fill_zero(ctx, w.pull_b_dec);
  transpose_entries(ctx, entries);
  sparse_decode(ctx, w.dx, w.error, w.l0, w.grad_b_dec, entries, w.x, decoder(s.latents), s.b_dec, s.p().threshold,
                2.0f / float(batch));
  sparsity_penalty(ctx, w.dl0, w.penalty, w.l0, s.control, recipe.penalty == Recipe::Penalty::kQuadratic, batch);
  update_listed_latents(ctx, s.latents, entries, w.dx, w.centred, w.dl0, w.sparse.grad_b_enc, s.fired, w.pull_b_dec,
                        s.rates, s.clock, static_cast<float>(recipe.bandwidth), latent_options(recipe));
  finish_step(ctx, s, w, recipe);
}

}  // namespace gsae
