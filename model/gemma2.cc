#include "model/gemma2.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/add.h"
#include "kernels/attention.h"
#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/embedding.h"
#include "kernels/geglu.h"
#include "kernels/lm_loss.h"
#include "kernels/matmul.h"
#include "kernels/next_tokens.h"
#include "kernels/range.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_residual.h"
#include "kernels/rope.h"
#include "kernels/softcap.h"
#include "model/kv_cache.h"

namespace gsae {

// The hooks of one forward pass, where it may stop, and the past of its sequences, if they have one.
class Gemma2::Pass {
 public:
  Pass(std::span<const Hook> hooks, int64_t layers, bool to_the_end, const KvCache* cache = nullptr)
      : hooks_(hooks), cache_(cache) {
    for (const Hook& hook : hooks) {
      CHECKF(0 <= hook.layer && hook.layer < layers, "forward: hook at layer {}: the model has layers 0 to {}",
             hook.layer, layers - 1);
      last_ = std::max(last_, place(hook.site, hook.layer));
    }
    if (to_the_end) last_ = place(Site::kAtt, layers);  // beyond: the head
  }

  const KvCache* cache() const { return cache_; }
  bool goes_beyond(Site site, int64_t layer) const { return last_ > place(site, layer); }
  bool stops_before(Site site, int64_t layer) const { return last_ < place(site, layer); }
  bool taps(Site site, int64_t layer) const {
    return std::any_of(hooks_.begin(), hooks_.end(), [&](const Hook& k) { return k.site == site && k.layer == layer; });
  }
  bool edits(Site site, int64_t layer) const {
    return std::any_of(hooks_.begin(), hooks_.end(),
                       [&](const Hook& k) { return k.site == site && k.layer == layer && k.edits; });
  }

  // Calls the hooks of a site; `scratch` holds an f32 copy of bf16 rows while they are edited.
  // Returns whether anything after this site is wanted.
  bool visit(Context& ctx, Site site, int64_t layer, Tensor rows, Tensor scratch = {}) const {
    for (const Hook& hook : hooks_) {
      if (hook.site != site || hook.layer != layer) continue;
      if (!hook.edits || rows.dtype == DType::kF32) {
        hook.call(ctx, rows);
        continue;
      }
      convert(ctx, scratch, rows);
      hook.call(ctx, scratch);
      convert(ctx, rows, scratch);
    }
    return goes_beyond(site, layer);
  }

 private:
  static int64_t place(Site site, int64_t layer) { return layer * 6 + static_cast<int64_t>(site); }

  std::span<const Hook> hooks_;
  const KvCache* cache_;
  int64_t last_ = -1;
};

namespace {

// The first elements of `t`, its leading dimension(s) cut down.
Tensor first(Tensor t, std::initializer_list<int64_t> shape) {
  std::copy(shape.begin(), shape.end(), t.dim.begin());
  t.rank = static_cast<int>(shape.size());
  return t;
}

// Memory that holds nothing at the moment, as f32.
Tensor as_f32(Tensor t, std::initializer_list<int64_t> shape) {
  t.dtype = DType::kF32;
  return first(t, shape);
}

}  // namespace

Gemma2::Activations::Activations(Arena& arena, const Gemma2& model, int64_t batch, int64_t length)
    : B(batch), T(length) {
  const GemmaConfig& c = model.config_;
  const DType compute = model.compute_, product = model.product_;
  const int64_t n = B * T, d = c.width, dh = c.head_width;
  x = arena.take("residual stream", DType::kF32, {n, d});
  h = arena.take("norm output", compute, {n, d});
  // Also holds an f32 copy of `att` while that is edited.
  const int64_t columns = (c.heads + 2 * c.kv_heads) * dh, edited = compute == DType::kBF16 ? c.heads * dh : 0;
  const auto copy = edited * static_cast<int64_t>(size_of(DType::kF32) / size_of(product));
  qkv = first(arena.take("q, k, v", product, {n * std::max(columns, copy)}), {n, columns});
  q = arena.take("queries by head", product, {B, c.heads, T, dh});
  k = arena.take("keys by head", product, {B, c.kv_heads, T, dh});
  v = arena.take("values by head", product, {B, c.kv_heads, T, dh});
  att = arena.take("attention output", compute, {n, c.heads * dh});
  y = arena.take("block output", DType::kF32, {n, d});
  gate_up = arena.take("gate and up", product, {n, 2 * c.ffn});
  ffn = arena.take("GeGLU output", compute, {n, c.ffn});
  rope = arena.take("rotary angles", DType::kF32, {T, 2, dh / 2});
  targets = arena.take("next tokens", DType::kI32, {B, T});
}

Gemma2::Activations Gemma2::Activations::part(int64_t batch, int64_t length) const {
  Activations a = *this;
  a.B = batch, a.T = length;
  const int64_t n = batch * length;
  for (Tensor* t : {&a.x, &a.h, &a.qkv, &a.att, &a.y, &a.gate_up, &a.ffn}) *t = t->rows(0, n);
  for (Tensor* t : {&a.q, &a.k, &a.v}) *t = first(*t, {batch, t->dim[1], length, t->dim[3]});
  a.targets = first(targets, {batch, length});
  return a;
}

Gemma2::Gemma2(Context& ctx, const std::string& dir, DType compute)
    : config_(read_config(dir)),
      compute_(compute),
      product_(ctx.device() == Device::kCpu ? DType::kF32 : compute),
      weights_(ctx, dir, config_, compute) {
  CHECKF(compute == DType::kF32 || compute == DType::kBF16, "the model computes in f32 or bf16, not in {}",
         name(compute));
}

Gemma2::Gemma2(Context& ctx, const GemmaConfig& config, DType compute, uint64_t seed)
    : config_(config),
      compute_(compute),
      product_(ctx.device() == Device::kCpu ? DType::kF32 : compute),
      weights_(ctx, config_, compute, seed) {}

Gemma2::Gemma2(Device device, const GemmaConfig& config, DType compute)
    : config_(config),
      compute_(compute),
      product_(device == Device::kCpu ? DType::kF32 : compute),
      weights_(config_, compute) {}

int64_t Gemma2::site_width(Site s) const {
  return s == Site::kAtt ? config_.heads * config_.head_width : config_.width;
}

// The part of the activations that these tokens take, with what no pass computes again.
Gemma2::Activations Gemma2::prepare(Context& ctx, Activations& all, Tensor tokens, const KvCache* cache) const {
  CHECKF(tokens.rank == 2 && 0 < tokens.dim[0] && tokens.dim[0] <= all.B && 0 < tokens.dim[1] && tokens.dim[1] <= all.T,
         "forward: tokens {} must be (B, T), up to ({}, {})", tokens, all.B, all.T);
  CHECKF(all.h.dtype == compute_, "forward: activations laid out for {}, the model computes in {}", name(all.h.dtype),
         name(compute_));
  if (cache) {
    cache->angles(ctx, all.rope.rows(0, tokens.dim[1]));
  } else if (!all.rope_is_filled) {
    rope_table(ctx, all.rope, config_.rope_theta);
  }
  all.rope_is_filled = !cache;
  return all.part(tokens.dim[0], tokens.dim[1]);
}

void Gemma2::forward(Context& ctx, Activations& all, Tensor tokens, std::span<const Hook> hooks, Tensor nll,
                     Tensor logits) const {
  const Range range("forward");
  run(ctx, prepare(ctx, all, tokens), tokens, Pass(hooks, config_.layers, nll || logits), nll, logits);
}

void Gemma2::forward(Context& ctx, Activations& all, const KvCache& cache, Tensor tokens, std::span<const Hook> hooks,
                     Tensor logits) const {
  CHECKF(tokens.rank == 2 && tokens.dim[0] <= cache.sequences() && tokens.dim[1] == cache.count(),
         "forward: tokens {}: the cache expects {} positions of up to {} sequences", tokens, cache.count(),
         cache.sequences());
  const Range range("forward");
  run(ctx, prepare(ctx, all, tokens, &cache), tokens, Pass(hooks, config_.layers, true, &cache), {}, logits);
}

void Gemma2::run(Context& ctx, const Activations& a, Tensor tokens, const Pass& pass, Tensor nll, Tensor logits) const {
  if (pass.stops_before(Site::kPre, 0)) return;
  // x = E[token] * sqrt(d), the factor rounded as the published model rounds it
  const float root = std::sqrt(static_cast<float>(config_.width));
  embedding(ctx, a.x, weights_.embedding, tokens, compute_ == DType::kBF16 ? to_float(to_bf16(root)) : root);
  run_layers(ctx, 0, a, tokens, pass, nll, logits);
}

void Gemma2::forward_from(Context& ctx, int64_t layer, Activations& all, Tensor tokens, std::span<const Hook> hooks,
                          Tensor nll, Tensor logits) const {
  CHECKF(0 <= layer && layer < config_.layers, "forward_from: layer {}: the model has layers 0 to {}", layer,
         config_.layers - 1);
  for (const Hook& hook : hooks)
    CHECKF(hook.layer >= layer, "forward_from: hook at layer {}: the pass begins at layer {}", hook.layer, layer);
  const Range range("forward");
  run_layers(ctx, layer, prepare(ctx, all, tokens), tokens, Pass(hooks, config_.layers, nll || logits), nll, logits);
}

// From the residual stream before layer `first` to the last hook, or through the head.
void Gemma2::run_layers(Context& ctx, int64_t first, const Activations& a, Tensor tokens, const Pass& pass, Tensor nll,
                        Tensor logits) const {
  if (!pass.visit(ctx, Site::kPre, first, a.x)) return;
  rms_norm(ctx, a.h, a.x, weights_.layers[first].norm_in, static_cast<float>(config_.norm_eps));
  for (int64_t layer = first; layer < config_.layers; ++layer)
    if (!run_layer(ctx, a, layer, pass)) return;
  run_head(ctx, a, tokens, nll, logits);
}

// One layer, from h = norm_in(x) to h = the norm that follows it. Returns whether the pass goes on.
bool Gemma2::run_layer(Context& ctx, const Activations& a, int64_t layer, const Pass& pass) const {
  const Range range(fmt::format("layer {}", layer).c_str());
  weights_.require_finite(ctx, layer);
  const GemmaConfig& c = config_;
  const LayerWeights& w = weights_.layers[layer];

  // q, k, v = h Wq, h Wk, h Wv;  q, k = rope(q), rope(k)
  linear(ctx, a.qkv, a.h, std::array{w.q, w.k, w.v});
  rope_split(ctx, a.q, a.k, a.v, a.qkv, a.rope);
  // att = softmax(cap tanh(q . k scale / cap), masked) v
  const AttentionOptions options{.scale = static_cast<float>(c.query_scale),
                                 .softcap = static_cast<float>(c.attention_cap),
                                 .window = c.sliding[layer] ? c.window : 0};
  if (pass.cache()) pass.cache()->attend(ctx, layer, a.att, a.q, a.k, a.v, options);
  else attention(ctx, a.att, a.q, a.k, a.v, options);
  if (!pass.visit(ctx, Site::kAtt, layer, a.att, as_f32(a.qkv, {a.att.dim[0], a.att.dim[1]}))) return false;

  // x += norm_post_att(att Wo);  m = norm_pre_ffw(x)
  linear(ctx, a.y, a.att, std::array{w.o});
  if (!add_norm(ctx, a, Site::kAttnOut, layer, w.norm_post_att, a.h, w.norm_pre_ffw, pass)) return false;
  if (!pass.visit(ctx, Site::kMlpIn, layer, a.h, a.y)) return false;

  // y = (gelu_tanh(m Wgate) * (m Wup)) Wdown
  linear(ctx, a.gate_up, a.h, std::array{w.gate, w.up});
  geglu(ctx, a.ffn, a.gate_up);
  linear(ctx, a.y, a.ffn, std::array{w.down});

  // x += norm_post_ffw(y);  h = the next layer's norm_in(x), or norm_final(x)
  const bool last = layer + 1 == c.layers;
  const Tensor next = last ? weights_.final_norm : weights_.layers[layer + 1].norm_in;
  const bool edits_x = pass.edits(Site::kRes, layer) || pass.edits(Site::kPre, layer + 1);
  const bool norm_now = !edits_x && pass.goes_beyond(Site::kPre, layer + 1);
  if (!add_norm(ctx, a, Site::kMlp, layer, w.norm_post_ffw, norm_now ? a.h : Tensor{}, next, pass)) return false;
  if (!pass.visit(ctx, Site::kRes, layer, a.x)) return false;
  if (!last && !pass.visit(ctx, Site::kPre, layer + 1, a.x)) return false;
  if (edits_x) rms_norm(ctx, a.h, a.x, next, static_cast<float>(c.norm_eps));
  return true;
}

// x += norm(y; post), norm(y) being the site;  h = norm(x; next), unless h is empty. In one pass over
// the rows where no hook is at the site.
bool Gemma2::add_norm(Context& ctx, const Activations& a, Site site, int64_t layer, Tensor post, Tensor h, Tensor next,
                      const Pass& pass) const {
  const float eps = static_cast<float>(config_.norm_eps);
  if (!pass.taps(site, layer)) {
    rms_norm_residual(ctx, h, a.x, a.y, post, next, eps);
    return true;
  }
  rms_norm(ctx, a.y, a.y, post, eps);
  if (!pass.visit(ctx, site, layer, a.y)) return false;
  add(ctx, a.x, a.y);
  if (h) rms_norm(ctx, h, a.x, next, eps);
  return true;
}

// logits = cap tanh((h E^T) / cap), h = norm_final(x)
void Gemma2::run_head(Context& ctx, const Activations& a, Tensor tokens, Tensor nll, Tensor logits) const {
  weights_.require_finite_embedding(ctx);
  const float cap = static_cast<float>(config_.logit_cap);
  if (logits) {
    const int64_t n = a.B * a.T;
    CHECKF(logits.rank == 2 && logits.dim[0] <= n, "forward: logits {} of {} rows", logits, n);
    linear(ctx, logits, a.h.rows(n - logits.dim[0], n), std::array{weights_.embedding});
    if (cap > 0) softcap(ctx, logits, cap);
  }
  if (nll) {
    next_tokens(ctx, a.targets, tokens);
    // gate_up is free by now. A tile of logits should stay in the cache between its product and its softmax; cuda keeps
    // 4 elements of each row for itself (kernels/lm_loss.h).
    const bool cpu = ctx.device() == Device::kCpu;
    const int64_t n = a.B * a.T, rows = std::min<int64_t>(n, cpu ? 1024 : 4096);
    const auto room = static_cast<int64_t>(a.gate_up.bytes() / size_of(DType::kF32));
    const int64_t columns = std::min<int64_t>(room / rows, cpu ? 1024 : 2048 + 4);
    lm_loss(ctx, nll.reshape({n}), a.h, weights_.embedding, a.targets.reshape({n}), cap,
            as_f32(a.gate_up, {rows, columns}));
  }
}

}  // namespace gsae
