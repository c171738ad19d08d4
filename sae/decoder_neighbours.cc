#include "sae/decoder_neighbours.h"

#include <algorithm>
#include <cmath>

#include "kernels/checkf.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

// |row| of every row, some at a time through the host.
std::vector<float> norms_of_rows(Context& ctx, Tensor W) {
  const int64_t F = W.dim[0], d = W.dim[1], at_a_time = std::max<int64_t>(1, (int64_t{64} << 20) / (d * 4));
  std::vector<float> norms(static_cast<size_t>(F)), part(static_cast<size_t>(std::min(F, at_a_time) * d));
  for (int64_t begin = 0; begin < F; begin += at_a_time) {
    const int64_t end = std::min(F, begin + at_a_time);
    copy(ctx, view(part.data(), {end - begin, d}), W.rows(begin, end));
    ctx.synchronize();
    parallel_for(end - begin, 64, [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        double square = 0;
        for (int64_t c = 0; c < d; ++c) square += double(part[r * d + c]) * part[r * d + c];
        norms[static_cast<size_t>(begin + r)] = static_cast<float>(std::sqrt(square));
      }
    });
  }
  return norms;
}

}  // namespace

std::vector<std::vector<Neighbour>> decoder_neighbours(Context& ctx, Tensor W_dec, std::span<const int64_t> latents,
                                                       int64_t k, Tensor scratch) {
  const int64_t F = W_dec.dim[0], d = W_dec.dim[1], count = static_cast<int64_t>(latents.size());
  const int64_t tile = std::min<int64_t>(count, scratch.size() / (F + d));
  CHECKF(tile > 0 || count == 0, "decoder_neighbours: scratch {} for {} latents of width {}", scratch, F, d);
  const std::vector<float> norms = norms_of_rows(ctx, W_dec);
  const auto cosine = [&](float dot, int64_t i, int64_t j) {
    const float norm = norms[static_cast<size_t>(i)] * norms[static_cast<size_t>(j)];
    return norm > 0 ? dot / norm : 0;
  };
  std::vector<std::vector<Neighbour>> found(static_cast<size_t>(count));
  std::vector<float> host;
  for (int64_t begin = 0; begin < count; begin += tile) {
    const int64_t n = std::min(tile, count - begin);
    const Tensor rows = scratch.rows(0, n * d).reshape({n, d});
    const Tensor dots = scratch.rows(tile * d, tile * d + n * F).reshape({n, F});
    for (int64_t r = 0; r < n; ++r) {
      const int64_t i = latents[static_cast<size_t>(begin + r)];
      copy(ctx, rows.rows(r, r + 1), W_dec.rows(i, i + 1));
    }
    matmul(ctx, dots, rows, W_dec, {.transpose_b = true});
    host.resize(static_cast<size_t>(n * F));
    copy(ctx, view(host.data(), {n, F}), dots);
    ctx.synchronize();
    parallel_for(n, 1, [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        const int64_t i = latents[static_cast<size_t>(begin + r)];
        std::vector<Neighbour> all;
        all.reserve(static_cast<size_t>(F));
        for (int64_t j = 0; j < F; ++j)
          if (j != i) all.push_back({j, cosine(host[static_cast<size_t>(r * F + j)], i, j)});
        const auto end = all.begin() + std::min<int64_t>(k, static_cast<int64_t>(all.size()));
        std::partial_sort(all.begin(), end, all.end(), [](const Neighbour& a, const Neighbour& b) {
          return a.cosine != b.cosine ? a.cosine > b.cosine : a.latent < b.latent;
        });
        found[static_cast<size_t>(begin + r)].assign(all.begin(), end);
      }
    });
  }
  return found;
}

}  // namespace gsae
