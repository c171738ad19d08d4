#include "sae/inference.h"

#include <algorithm>

#include "kernels/add_bias.h"
#include "kernels/checkf.h"
#include "kernels/elementwise.h"
#include "kernels/entries.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/sparse_decode.h"

namespace gsae {

void encode(Context& ctx, Tensor f, Tensor x, const SaeParameters& sae, Tensor l0, Tensor fired) {
  matmul(ctx, f, x, sae.W_enc, {.bias = sae.b_enc});
  jump_relu(ctx, f, f, sae.threshold, l0, fired);
}

void decode(Context& ctx, Tensor x_hat, Tensor f, const SaeParameters& sae) {
  matmul(ctx, x_hat, f, sae.W_dec);
  add_bias(ctx, x_hat, sae.b_dec);
}

SaeWorkspace::SaeWorkspace(Arena& arena, int64_t latents, int64_t rows) {
  constexpr int64_t kTileBytes = int64_t{64} << 20, kFewest = 64;  // fewer rows starve the products
  const int64_t fitting = kTileBytes / (latents * static_cast<int64_t>(size_of(DType::kF32)));
  f = arena.take("latents of a tile", DType::kF32, {std::min(rows, std::max(kFewest, fitting)) * latents});
}

ReconstructionWorkspace::ReconstructionWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t most_latents)
    : latents(arena, most_latents, rows),
      entries(arena, rows, most_latents, latents.f.size() / most_latents * most_entries_of_row(most_latents)),
      error(arena.take("errors of a tile", DType::kF32, {rows})),
      bias(arena.take("gradient that is not used", DType::kF32, {width})) {}

// Where the two take about the same time (docs/sparse-step.md): a list's entry costs a row of the decoder from memory,
// a product's only arithmetic. A narrow SAE may have them all.
int64_t most_entries_of_row(int64_t latents) { return std::min(latents, std::max<int64_t>(64, latents / 32)); }

namespace {

// The first rows of the lists' memory, for an SAE that may be narrower than it has room for.
Entries entries_of(const Entries& all, int64_t rows, int64_t latents) {
  Entries e = all;
  e.begin = all.begin.rows(0, latents + 1);
  e.row_begin = all.row_begin.rows(0, rows + 1);
  return e;
}

// False, with nothing that counts done, if there are more entries than pay.
bool reconstruct_from_lists(Context& ctx, Tensor x_hat, Tensor x, const SaeParameters& sae,
                            const ReconstructionWorkspace& w, Tensor l0, Tensor fired) {
  const int64_t n = x.dim[0], F = sae.latents();
  const Tensor zt = w.latents.f.rows(0, F * n).reshape({F, n});
  const Entries entries = entries_of(w.entries, n, F);
  matmul(ctx, zt, sae.W_enc, x, {.transpose_a = true, .transpose_b = true});
  clear_entries(ctx, entries);
  select_entries(ctx, entries, zt, sae.b_enc, sae.threshold, 0, 0);
  int64_t count = 0;
  copy(ctx, view(&count, {1}), entries.count);
  ctx.synchronize();
  if (count > n * most_entries_of_row(F)) return false;
  transpose_entries(ctx, entries);
  const Tensor bias = w.bias.rows(0, sae.width());
  fill_zero(ctx, bias);
  fill_zero(ctx, x_hat);  // the residual against zero is x_hat, to the bit
  sparse_decode(ctx, x_hat, w.error.rows(0, n), l0, bias, entries, x_hat, sae.W_dec, sae.b_dec, sae.threshold, 1);
  count_entries(ctx, fired, entries);
  return true;
}

}  // namespace

void reconstruct(Context& ctx, Tensor x_hat, Tensor x, const SaeParameters& sae, const ReconstructionWorkspace& w,
                 Tensor l0, Tensor fired, bool& sparse) {
  const int64_t n = x.dim[0], latents = sae.latents();
  const int64_t tile =
      std::min({w.latents.f.size() / latents, w.entries.capacity() / most_entries_of_row(latents), w.entries.batch()});
  CHECKF(tile > 0 || n == 0, "reconstruct: workspace {} is too small for {} latents", w.latents.f, latents);
  for (int64_t begin = 0; begin < n; begin += tile) {
    const int64_t end = std::min(n, begin + tile);
    const Tensor rows = x.rows(begin, end), out = x_hat.rows(begin, end), counts = l0.rows(begin, end);
    sparse = sparse && reconstruct_from_lists(ctx, out, rows, sae, w, counts, fired);
    if (sparse) continue;
    const Tensor f = w.latents.f.rows(0, rows.dim[0] * latents).reshape({rows.dim[0], latents});
    encode(ctx, f, rows, sae, counts, fired);
    decode(ctx, out, f, sae);
  }
}

}  // namespace gsae
