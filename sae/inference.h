#pragma once

#include "kernels/context.h"
#include "kernels/entries.h"
#include "kernels/memory.h"
#include "sae/sae_parameters.h"

namespace gsae {

// A folded SAE on raw activations, in f32: what a released SAE does to a model.
//
//   f     = z where z > threshold, else 0,  z = x W_enc + b_enc
//   x_hat = f W_dec + b_dec
//
//   f (n, F) f32;  x, x_hat (n, d) f32;  l0 (n) f32, or empty;  fired (F) i32, accumulated, or empty
void encode(Context& ctx, Tensor f, Tensor x, const SaeParameters& sae, Tensor l0 = {}, Tensor fired = {});
void decode(Context& ctx, Tensor x_hat, Tensor f, const SaeParameters& sae);

// The latents of some rows at a time: wide SAEs have more latents than memory for all rows of a batch.
// Serves every SAE of at most `latents` latents.
struct SaeWorkspace {
  SaeWorkspace(Arena& arena, int64_t latents, int64_t rows);  // rows: the most that come at once

  Tensor f;  // (tile * latents) f32
};

// What reconstruct() needs, for SAEs of at most `width` and `latents`; rows as above.
struct ReconstructionWorkspace {
  ReconstructionWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t latents);

  SaeWorkspace latents;
  Entries entries;  // of a tile
  Tensor error;     // (tile)  f32
  Tensor bias;      // (width) f32
};

// The entries of a row up to which it is decoded from lists, as a training step does it, rather than by a product.
int64_t most_entries_of_row(int64_t latents);

// Both, tile by tile of rows; x_hat, l0 and fired as above, none of them empty, x_hat not x itself.
//
// sparse: in, whether to decode from lists of the active latents; out, false from the first tile on of which there were
// too many. Then what is left is dense. An SAE's L0 is about the same everywhere: give it to the next call. The host
// waits once in a sparse tile, for the number of entries.
void reconstruct(Context& ctx, Tensor x_hat, Tensor x, const SaeParameters& sae,
                 const ReconstructionWorkspace& workspace, Tensor l0, Tensor fired, bool& sparse);

}  // namespace gsae
