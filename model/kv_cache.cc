#include "model/kv_cache.h"

#include <algorithm>
#include <numeric>

#include "kernels/attention_cached.h"
#include "kernels/checkf.h"
#include "kernels/rope.h"
#include "kernels/rows.h"

namespace gsae {

KvCache::KvCache(Arena& arena, const Gemma2& model, int64_t B, int64_t length, int64_t most)
    : B_(B), theta_(model.config().rope_theta) {
  const GemmaConfig& c = model.config();
  const int64_t dh = c.head_width;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const int64_t rows = c.sliding[layer] ? std::min(c.window, length) : length;
    const Tensor k = arena.take("cached keys", model.product(), {B, c.kv_heads, rows, dh});
    layers_.push_back({k, arena.take("cached values", model.product(), {B, c.kv_heads, rows, dh})});
  }
  angles_ = arena.take("rotary angles of all positions", DType::kF32, {length, 2, dh / 2});
  positions_ = arena.take("positions of a pass", DType::kI32, {most});
}

void KvCache::begin(Context& ctx, int64_t count) {
  CHECKF(0 < count && count <= positions_.dim[0] && length() + count <= capacity(),
         "the cache has room for {} positions, {} in a pass: {} more do not fit behind {}", capacity(),
         positions_.dim[0], count, length());
  if (length() == 0) {
    rope_table(ctx, angles_, theta_);
    upload_ = Upload(ctx, positions_.bytes());
  }
  start_ += count_, count_ = count;
  std::vector<int32_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(start_));
  upload_.send(ctx, positions_.rows(0, count), view(positions.data(), {count}));
}

void KvCache::repeat_first(Context& ctx) {
  for (const Layer& l : layers_)
    for (int64_t b = 1; b < B_; ++b) {
      copy(ctx, l.k.rows(b, b + 1), l.k.rows(0, 1));
      copy(ctx, l.v.rows(b, b + 1), l.v.rows(0, 1));
    }
}

void KvCache::angles(Context& ctx, Tensor out) const {
  const int64_t width = 2 * out.dim[2];
  gather_rows(ctx, out.reshape({count_, width}), angles_.reshape({capacity(), width}), positions_.rows(0, count_), 1);
}

void KvCache::attend(Context& ctx, int64_t layer, Tensor out, Tensor q, Tensor k, Tensor v,
                     const AttentionOptions& o) const {
  const Tensor keys = layers_[layer].k.rows(0, q.dim[0]), values = layers_[layer].v.rows(0, q.dim[0]);
  const Tensor start = positions_.rows(0, 1);
  if (start_ == 0) attention(ctx, out, q, k, v, o);  // there is no past
  else attention_cached(ctx, out, q, k, v, keys, values, start, o);
  append_cached(ctx, keys, values, k, v, start);
}

}  // namespace gsae
