#pragma once

#include <vector>

#include "kernels/attention.h"
#include "kernels/context.h"
#include "kernels/memory.h"
#include "kernels/transfer.h"
#include "model/gemma2.h"

namespace gsae {

// The keys and values of the positions that a model has seen, so that a pass over the next ones needs these alone.
// Sequences are of one length. Layers with a sliding window keep a ring of its last positions, the others all.
class KvCache {
 public:
  // Room for `length` positions of B sequences, of which passes add up to `most` at a time.
  KvCache(Arena& arena, const Gemma2& model, int64_t B, int64_t length, int64_t most);

  int64_t sequences() const { return B_; }
  int64_t capacity() const { return angles_.dim[0]; }  // the most positions
  int64_t length() const { return start_ + count_; }   // positions, those of the pass at hand among them
  int64_t start() const { return start_; }             // of the pass at hand
  int64_t count() const { return count_; }

  // The next pass (Gemma2::forward) is about the `count` positions behind those before it. An Error if there is no room
  // for them. Not within a Graph: a pass from a position above 0 may be recorded, and begin() put before each replay.
  void begin(Context& ctx, int64_t count);

  // After passes over the first sequence alone: the others have the same past.
  void repeat_first(Context& ctx);

  // Of the pass at hand: rows of the rotary table for its positions, (count, 2, dh/2).
  void angles(Context& ctx, Tensor out) const;
  // Attention (kernels/attention.h) of a layer's new positions over all there are; they are put into the cache.
  void attend(Context& ctx, int64_t layer, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& o) const;

 private:
  struct Layer {
    Tensor k, v;  // (B, Hkv, C, dh), position p at p mod C
  };

  int64_t B_, start_ = 0, count_ = 0;
  double theta_;
  std::vector<Layer> layers_;
  Tensor angles_;     // (length, 2, dh/2) f32
  Tensor positions_;  // (most)            i32, of the pass at hand
  Upload upload_;
};

}  // namespace gsae
