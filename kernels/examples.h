#pragma once

#include "kernels/context.h"
#include "kernels/memory.h"
#include "kernels/tensor.h"

namespace gsae {

// What is remembered of each latent's activations f over a pass of any length, in memory of a fixed size. Rows have
// numbers, and every T of them are a context. All but the sum is a function of the set of activations alone: it does
// not depend on how they came, in how many pieces, or on how many threads took them.
//
//   scale      the least e >= -125 for which every f is below 2^e; kNoScale before the first
//   histogram  of f, in kBins equal parts of [0, 2^e)
//   top        of each context the largest f (the earliest of equals), of those the kTop largest, largest first, the
//              earlier of equals first
//   bands      of the f in each of kBands equal parts of [0, 2^e) a random choice: the kPerBand of the least key, the
//              first word of Random(seed, kSampleExamples, latent) at the row
struct Examples {
  static constexpr int kTop = 20, kBins = 64, kBands = 8, kPerBand = 5;
  static constexpr int kNoScale = -1000, kLeastScale = -125;

  Examples() = default;
  Examples(Arena& arena, int64_t latents);

  Tensor count;       // (F) i32: rows with f > 0
  Tensor sum;         // (F) f64: of f, in the order of the rows
  Tensor scale;       // (F) i32
  Tensor histogram;   // (F, kBins) i32
  Tensor top_value;   // (F, kTop) f32
  Tensor top_row;     // (F, kTop) i32; -1: none, nor behind it
  Tensor band_value;  // (F, kBands, kPerBand) f32, by ascending key
  Tensor band_row;    // (F, kBands, kPerBand) i32; -1: none, nor behind it
  Tensor band_key;    // (F, kBands, kPerBand) i32, the bits of a u32
  Tensor faults;      // (1) i32: not 0: an f was NaN or infinite, which nothing above takes note of

  int64_t latents() const { return count.dim[0]; }
};

void clear_examples(Context& ctx, const Examples& e);

// Adds the rows of a tile.
//
//   f    (n, F) f32, 0 where a latent is not active
//   row  (n) i32: their numbers, >= 0, ascending, all above those of the calls before
//
// Memory-bound: reads f once; what changes is little of the rest.
void add_examples(Context& ctx, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed);

namespace cpu {
void clear_examples(Context& ctx, const Examples& e);
void add_examples(Context& ctx, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed);
}  // namespace cpu
namespace cuda {
void clear_examples(Context& ctx, const Examples& e);
void add_examples(Context& ctx, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed);
}  // namespace cuda

}  // namespace gsae
