#include "sae/inference.h"

#include <algorithm>

#include "kernels/add_bias.h"
#include "kernels/checkf.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"

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

void reconstruct(Context& ctx, Tensor x_hat, Tensor x, const SaeParameters& sae, const SaeWorkspace& workspace,
                 Tensor l0, Tensor fired) {
  const int64_t n = x.dim[0], latents = sae.latents(), tile = workspace.f.size() / latents;
  CHECKF(tile > 0 || n == 0, "reconstruct: workspace {} is too small for {} latents", workspace.f, latents);
  for (int64_t begin = 0; begin < n; begin += tile) {
    const int64_t end = std::min(n, begin + tile);
    const Tensor f = workspace.f.rows(0, (end - begin) * latents).reshape({end - begin, latents});
    encode(ctx, f, x.rows(begin, end), sae, l0 ? l0.rows(begin, end) : Tensor{}, fired);
    decode(ctx, x_hat.rows(begin, end), f, sae);
  }
}

}  // namespace gsae
