#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/memory.h"
#include "model/gemma2.h"

namespace gsae {

// A token of the vocabulary and what a latent does to its logit.
struct TokenEffect {
  int32_t token = 0;
  float logit = 0;
};

// Direct logit attribution: what one unit of a latent adds to the logits through the residual stream alone, no later
// layer reading it. Its decoder row v (of unit norm) reaches the residual stream as u, and the logits as
//
//   logit[t] = sum_c (1 + w_final[c]) u[c] E[t, c]
//
//   res, pre, attn_out, mlp   u = v: these sites are the stream, or what is added to it behind the post-norm
//   att                       u = (1 + w_post) * (Wo v): through the output projection and the post-attention norm's
//                             weight
//   mlp_in                    none: it reaches the stream through the MLP alone
//
// Both norms also divide by a root mean square that belongs to the token where the latent fires: it is left out, so
// that logits are right but for a positive factor. So is the final softcap, which keeps the order.
struct LogitAttribution {
  static constexpr int kBins = 50;

  std::vector<TokenEffect> top, bottom;    // largest first, smallest first; ties to the lower token
  float lowest = 0, highest = 0;           // of all tokens
  std::array<int64_t, kBins> histogram{};  // of all tokens' logits, in equal parts of [lowest, highest]
};

bool has_logit_attribution(Site site);

// Device memory for it: some latents' logits at a time.
struct AttributionMemory {
  AttributionMemory(Arena& arena, const Gemma2& model);
  static int64_t tile(const Gemma2& model);  // latents at a time

  Tensor x;       // (tile * max(d, Hq dh)) f32
  Tensor h;       // the same, in the type that the model's matrices are multiplied in
  Tensor logits;  // (tile * max(V, d)) f32
};

// rows: (n, width of the site) on the host, a decoder row each. k: tokens at either end. Empty if the site has none.
std::vector<LogitAttribution> attribute_logits(Context& ctx, const Gemma2& model, Site site, int64_t layer, Tensor rows,
                                               int64_t k, const AttributionMemory& memory);

}  // namespace gsae
