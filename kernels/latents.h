#pragma once

#include "kernels/tensor.h"

namespace gsae {

// What an SAE has for each of its latents while it trains: a row, or an element. W_enc lies latent by latent, like
// W_dec: the transpose of what files hold, so that one latent's step touches two rows.
struct LatentTensors {
  Tensor W_enc;      // (F, d) f32
  Tensor W_dec;      // (F, d) f32
  Tensor b_enc;      // (F)    f32
  Tensor threshold;  // (F)    f32

  int64_t width() const { return W_enc.dim[1]; }    // d
  int64_t latents() const { return W_enc.dim[0]; }  // F
  LatentTensors rows(int64_t begin, int64_t end) const {
    return {W_enc.rows(begin, end), W_dec.rows(begin, end), b_enc.rows(begin, end), threshold.rows(begin, end)};
  }
};

// Parameters and what Adam remembers of them.
struct LatentState {
  LatentTensors p;          // rows of W_dec have unit norm; threshold >= 0
  LatentTensors v;          // second moments, as they were after step stamp[i]
  Tensor W_enc16, W_dec16;  // (F, d) bf16: p rounded, for the products; or empty
  Tensor stamp;             // (F) i64: the step that last changed the latent; 0: none yet

  LatentState rows(int64_t begin, int64_t end) const {
    const auto part = [&](Tensor t) { return t ? t.rows(begin, end) : t; };
    return {p.rows(begin, end), v.rows(begin, end), part(W_enc16), part(W_dec16), stamp.rows(begin, end)};
  }
};

}  // namespace gsae
