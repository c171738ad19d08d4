#pragma once

#include <functional>
#include <span>
#include <string>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "model/config.h"
#include "model/site.h"
#include "model/weights.h"

namespace gsae {

class KvCache;

// Called during the forward pass with the rows of a site, (n, width), f32 or bf16 as the model
// computes it. If it edits, the pass goes on with what it leaves there, and the rows are f32: in
// bf16 compute a copy of the sites that are bf16 (`att`, `mlp_in`), rounded back afterwards.
struct Hook {
  Site site;
  int64_t layer;
  bool edits = false;
  std::function<void(Context&, Tensor rows)> call;
};

// Gemma 2's forward pass (arXiv:2408.00118), from mapped weights.
//
// The residual stream is f32 in both compute types. compute = kBF16 rounds the operands of the
// matrix products (norm outputs, attention outputs, GeGLU outputs) to bf16 and accumulates in f32. What goes from a
// product to attention or GeGLU is f32 on the CPU, whose caches hold it, and of the compute type on a GPU, where it
// would be half of the memory traffic.
class Gemma2 {
 public:
  // What one forward pass over B x T tokens needs, laid out in an arena (or only counted).
  struct Activations {
    Activations(Arena& arena, const Gemma2& model, int64_t B, int64_t T);
    Activations part(int64_t B, int64_t T) const;  // the same memory, for a smaller batch

    int64_t B, T;
    Tensor x;        // (n, d)               f32, the residual stream
    Tensor h;        // (n, d)               compute, what a norm leaves for a product
    Tensor qkv;      // (n, (Hq + 2 Hkv) dh) product
    Tensor q, k, v;  // (B, H, T, dh)        product
    Tensor att;      // (n, Hq dh)           compute
    Tensor y;        // (n, d)               f32, of o_proj and down_proj
    Tensor gate_up;  // (n, 2 ffn)           product; elsewhere scratch
    Tensor ffn;      // (n, ffn)             compute
    Tensor rope;     // (T, 2, dh/2)         f32, cosine and sine
    Tensor targets;  // (B, T)               i32, of the LM loss
    bool rope_is_filled = false;
  };

  // config.json and weights of a folder
  Gemma2(Context& ctx, const std::string& dir, DType compute);

  // Random weights, for benchmarks.
  Gemma2(Context& ctx, const GemmaConfig& config, DType compute, uint64_t seed);

  // The shape of that one alone, to plan its memory and that of its activations with: it cannot run.
  Gemma2(Device device, const GemmaConfig& config, DType compute);

  const GemmaConfig& config() const { return config_; }
  DType compute() const { return compute_; }
  DType product() const { return product_; }  // of queries, keys and values
  const GemmaWeights& weights() const { return weights_; }
  int64_t site_width(Site s) const;

  // Runs the layers up to the last hook (all layers if `nll` or `logits` is wanted) on tokens (B, T)
  // i32, B up to a.B and T up to a.T. Several hooks at one site are called in the order given.
  //
  //   nll     (B, T) f32, or empty: -log p(tokens[b, t+1] | tokens[b, 0..t]); 0 at t = T - 1
  //   logits  (m, V) f32, or empty: after the final softcap, of the last m of the B * T rows
  //
  // An Error if a hook's layer is not there, a token lies outside the vocabulary, or a weight that is
  // used for the first time is NaN or infinite.
  void forward(Context& ctx, Activations& a, Tensor tokens, std::span<const Hook> hooks, Tensor nll = {},
               Tensor logits = {}) const;

  // The same for the next positions of sequences whose past is in the cache, where these are put: tokens (b, count) of
  // its first b sequences, for the count that cache.begin() was given.
  void forward(Context& ctx, Activations& a, const KvCache& cache, Tensor tokens, std::span<const Hook> hooks,
               Tensor logits = {}) const;

  // The rest of such a pass from a layer on, to the same bits: a.x holds the rows that a hook at Site::kPre of that
  // layer would see (one there sees them again), for the same tokens. All hooks lie in that layer or behind it.
  void forward_from(Context& ctx, int64_t layer, Activations& a, Tensor tokens, std::span<const Hook> hooks,
                    Tensor nll = {}, Tensor logits = {}) const;

 private:
  class Pass;
  Activations prepare(Context& ctx, Activations& a, Tensor tokens, const KvCache* cache = nullptr) const;
  void run(Context& ctx, const Activations& a, Tensor tokens, const Pass& pass, Tensor nll, Tensor logits) const;
  void run_layers(Context& ctx, int64_t first, const Activations& a, Tensor tokens, const Pass& pass, Tensor nll,
                  Tensor logits) const;
  bool run_layer(Context& ctx, const Activations& a, int64_t layer, const Pass& pass) const;
  bool add_norm(Context& ctx, const Activations& a, Site site, int64_t layer, Tensor post, Tensor h, Tensor next,
                const Pass& pass) const;
  void run_head(Context& ctx, const Activations& a, Tensor tokens, Tensor nll, Tensor logits) const;

  GemmaConfig config_;
  DType compute_;
  DType product_;  // of what a product leaves for attention and GeGLU
  GemmaWeights weights_;
};

}  // namespace gsae
