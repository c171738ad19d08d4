#pragma once

#include <span>
#include <vector>

#include "kernels/graph.h"
#include "model/kv_cache.h"

namespace gsae {

// Continues sequences token by token: the prompt in one pass, or in pieces if it is long, then one position a pass.
// Everything is laid out before the first token.
class Generator {
 public:
  // Up to `length` positions of `sequences` that have the prompt in common, of which passes take up to `most` at once.
  Generator(Arena& arena, const Gemma2& model, int64_t sequences, int64_t length, int64_t most);

  // What each pass calls from here on (Gemma2::forward): rows of the positions from start() on, of every sequence. They
  // go into a Graph: what they do may not depend on anything but the rows, once start() is above 0.
  void set_hooks(std::vector<Hook> hooks);
  int64_t start() const { return cache_.start(); }
  int64_t length() const { return cache_.length(); }  // positions that have gone through
  int64_t most() const { return prompt_.T; }

  // The next tokens of the prompt, at most `most`. After the last ones fork(), if there are several sequences.
  void add(Context& ctx, std::span<const int32_t> ids);
  void fork(Context& ctx) { cache_.repeat_first(ctx); }
  // One token more for each sequence.
  void next(Context& ctx, std::span<const int32_t> ids);

  // Of what follows the last token: (V) of a prompt, (sequences, V) after next(). Waits for the pass; once for each.
  std::vector<float> logits() { return readback_.wait<float>(); }

 private:
  void send(Context& ctx, int64_t positions, std::span<const int32_t> ids);

  const Gemma2& model_;
  KvCache cache_;
  Gemma2::Activations prompt_, step_;  // for (1, most) and (sequences, 1) tokens
  Tensor tokens_;                      // (max of both)  i32
  Tensor logits_;                      // (sequences, V) f32
  std::vector<Hook> hooks_;
  Graph graph_;  // of next()
  Upload upload_;
  Readback readback_;
  bool ready_ = false;  // both are there
};

}  // namespace gsae
