#pragma once

#include "kernels/context.h"
#include "kernels/memory.h"
#include "kernels/tensor.h"

namespace gsae {

// The part of z (B, F) that a training step's backward pass needs, as lists:
//
//   S = {(r, i) : z[r,i] > theta[i] - eps/2}
//
// the active latents (z > theta) and those whose z lies within the window of theta's estimator. Everything outside has
// no gradient. An entry has its place in the lists by latent; the lists by row point to it. Both orders are unique, so
// the lists do not depend on how, or by how many threads, they were made.
struct Entries {
  static constexpr int64_t kMostRows = int64_t{1} << 24;  // of a batch

  Entries() = default;
  Entries(Arena& arena, int64_t batch, int64_t latents, int64_t capacity);  // capacity: of entries, below 2^31

  // by latent
  Tensor begin;  // (F + 1) i32: latent i has the places [begin[i], begin[i+1])
  Tensor row;    // (E) i32, ascending within a latent
  Tensor owner;  // (E) i32: the latent again, for each of its entries
  Tensor z;      // (E) f32, with its bias
  Tensor df;     // (E) f32: the gradient of f, from sparse_decode
  // by row
  Tensor row_begin;  // (B + 1) i32: row r has latent[row_begin[r]], ..., latent[row_begin[r+1] - 1]
  Tensor latent;     // (E) i32, ascending within a row
  Tensor place;      // (E) i32: where this entry is in the lists by latent
  // of all
  Tensor count;  // (1) i64: how many there are, whether they fit or not

  int64_t batch() const { return row_begin.dim[0] - 1; }
  int64_t latents() const { return begin.dim[0] - 1; }
  int64_t capacity() const { return row.dim[0]; }
};

// Forgets all entries. Before the first tile; the lists are there after the last one, those by row after
// transpose_entries.
void clear_entries(Context& ctx, const Entries& e);

// Appends those of the latents [first, first + Ft), from a tile of pre-activations that need not be kept:
//
//   z[r,i] = zt[i,r] + b_enc[i];  an entry where not z <= theta[i] - half      (NaN is one: it shows in the loss)
//
//   zt            (Ft, B)  f32: a latent a row
//   b_enc, theta  (Ft)     f32: those of the tile's latents
//
// Called for tiles of latents one after the other, from the first to the last. Beyond the capacity nothing is written
// but e.count, which goes on counting: where it is more than the capacity at the end, the lists must not be used.
// Memory-bound: reads zt once (from a cache, if the tile is small enough).
void select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half, int64_t first);

// The lists by row, from those by latent: a stable sort on the row. Does nothing that matters where e.count is more
// than the capacity.
void transpose_entries(Context& ctx, const Entries& e);

// fired[i] += the number of latent i's entries, which must have fitted. fired (F) i32.
void count_entries(Context& ctx, Tensor fired, const Entries& e);

namespace cpu {
void clear_entries(Context& ctx, const Entries& e);
void select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half, int64_t first);
void transpose_entries(Context& ctx, const Entries& e);
void count_entries(Context& ctx, Tensor fired, const Entries& e);
}  // namespace cpu
namespace cuda {
void clear_entries(Context& ctx, const Entries& e);
void select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half, int64_t first);
void transpose_entries(Context& ctx, const Entries& e);
void count_entries(Context& ctx, Tensor fired, const Entries& e);
}  // namespace cuda

}  // namespace gsae
