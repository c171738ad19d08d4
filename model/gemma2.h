#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "model/config.h"
#include "model/site.h"
#include "model/weights.h"

namespace gsae {

// Called during the forward pass with the rows of a site, (n, width), f32 or bf16 as the model
// computes it. If it edits, the pass goes on with what it leaves there (in f32: such a site is
// computed in f32).
struct Hook {
  Site site;
  int64_t layer;
  bool edits = false;
  std::function<void(Context&, Tensor rows)> call;
};

// Gemma 2's forward pass (arXiv:2408.00118), from mapped weights.
//
// The residual stream is f32 in both compute types. compute = kBF16 rounds the operands of the
// matrix products (norm outputs, attention outputs, GeGLU outputs) to bf16 and accumulates in f32.
class Gemma2 {
 public:
  // What one forward pass over B x T tokens needs, laid out in an arena (or only counted).
  struct Activations {
    Activations(Arena& arena, const GemmaConfig& c, DType compute, int64_t B, int64_t T);
    // ... members: see gemma2.cc's use; public so that the memory plan can name them
    int64_t B, T;
    Tensor x;        // (n, d)              f32, the residual stream
    Tensor h;        // (n, d)              compute, what a norm leaves for a product
    Tensor qkv;      // (n, (Hq + 2 Hkv) dh) f32
    Tensor q, k, v;  // (B, H, T, dh)       f32
    Tensor att;      // (n, Hq dh)          compute
    Tensor y;        // (n, d)              f32, of o_proj and down_proj
    Tensor gate_up;  // (n, 2 ffn)          f32
    Tensor ffn;      // (n, ffn)            compute
    Tensor rope;     // (T, dh/2, 2)        f32, cos and sin
    Tensor logits;   // scratch of the LM loss
  };

  Gemma2(Context& ctx, const std::string& dir,
         DType compute);  // config.json and weights of a folder

  const GemmaConfig& config() const;
  int64_t site_width(Site s) const;

  // Runs the layers up to the last hook (all layers if `nll` or `logits` is wanted) on tokens (B,
  // T) i32, B up to a.B and T up to a.T.
  //
  //   nll     (B, T) f32, or empty: -log p(tokens[b, t+1] | tokens[b, 0..t]); 0 at t = T - 1
  //   logits  (B * T, V) f32, or empty: after the final softcap
  void forward(Context& ctx, Activations& a, Tensor tokens, std::span<const Hook> hooks, Tensor nll = {},
               Tensor logits = {}) const;

 private:
  GemmaConfig config_;
  DType compute_;
  GemmaWeights weights_;
};

}  // namespace gsae
