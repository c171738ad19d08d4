#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "io/token_stream.h"
#include "model/gemma2.h"

namespace gsae {

// Contexts that are kept, for more than one pass over them.
struct KeptContexts {
  int64_t count = 0, length = 0;  // contexts; T
  std::vector<int32_t> tokens;    // (count, T)

  // The next `wanted` contexts of a stream, fewer at its end, read `at_a_time`.
  static KeptContexts read(TokenStream& stream, int64_t wanted, int64_t at_a_time);
  std::span<const int32_t> context(int64_t c) const {
    return std::span(tokens).subspan(static_cast<size_t>(c * length), static_cast<size_t>(length));
  }
};

// The forward pass over some of them, a batch after the other, and where their rows are that count: those of BOS, EOS
// and padding do not.
class ContextPass {
 public:
  // Device memory for batches of B contexts of T tokens.
  struct Memory {
    Memory(Arena& arena, const Gemma2& model, int64_t B, int64_t T);

    Gemma2::Activations activations;
    Tensor tokens;      // (B * T) i32
    Tensor index, row;  // (B * T) i32: see Batch
  };

  struct Batch {
    std::span<const int64_t> contexts;  // of KeptContexts
    std::span<const int32_t> place;     // (B * T): of each row of the batch among those that count; -1: it does not
    Tensor index;                       // (n) i32 on the device: the rows of the batch that count, ascending
    Tensor row;                         // (n) i32 on the device: their numbers, context * T + position
  };

  // What is done with the rows of a site, (B * T, width).
  struct Tap {
    Site site;
    int64_t layer;
    std::function<void(Context& ctx, Tensor rows, const Batch& batch)> call;
  };

  ContextPass(const Gemma2& model, Memory& memory, const KeptContexts& contexts)
      : model_(model), memory_(memory), contexts_(contexts) {}

  // Runs these contexts, ascending. `done` is called behind each batch, with how many there have been.
  void run(Context& ctx, std::span<const int64_t> which, std::span<const Tap> taps,
           const std::function<void(int64_t done)>& done);

 private:
  void load(Context& ctx, std::span<const int64_t> which);

  const Gemma2& model_;
  Memory& memory_;
  const KeptContexts& contexts_;
  std::vector<int32_t> tokens_, place_, index_, row_;
};

}  // namespace gsae
