#include "tools/latent_reader.h"

#include <algorithm>

#include "kernels/convert.h"
#include "tools/lay_out.h"

namespace gsae {

namespace {

// Those of one row that are active, the strongest first; of equals the lower id.
std::vector<LatentReader::Activation> strongest(const float* f, int64_t latents, int64_t top) {
  std::vector<LatentReader::Activation> active;
  for (int64_t i = 0; i < latents; ++i)
    if (f[i] > 0) active.push_back({i, f[i]});
  const auto n = std::min(active.size(), static_cast<size_t>(top));
  std::partial_sort(
      active.begin(), active.begin() + static_cast<std::ptrdiff_t>(n), active.end(),
      [](const auto& a, const auto& b) { return a.value != b.value ? a.value > b.value : a.latent < b.latent; });
  active.resize(n);
  return active;
}

struct Workspace {
  Workspace(Arena& arena, int64_t width, int64_t latents, int64_t most)
      : rows(arena.take("rows of a site", DType::kF32, {most, width})), f(SaeWorkspace(arena, latents, most).f) {}

  Tensor rows, f;
};

}  // namespace

int64_t LatentReader::bytes(const SaeFile& sae, int64_t most) {
  return measure<SaeParameters>(sae.width, sae.latents) + measure<Workspace>(sae.width, sae.latents, most);
}

LatentReader::LatentReader(Context& ctx, const ChosenSae& sae, int64_t most) : sae_(sae), loaded_(load_sae(sae.file)) {
  move_to_device(ctx, loaded_);
  const int64_t width = loaded_.params.width(), latents = loaded_.params.latents();
  const auto workspace = allocate<Workspace>(ctx.device(), memory_, width, latents, most);
  rows_ = workspace->rows;
  f_ = workspace->f.reshape({workspace->f.size() / latents, latents});
}

Hook LatentReader::hook() {
  return {
      .site = sae_.place.site, .layer = sae_.place.layer, .edits = false, .call = [this](Context& ctx, Tensor rows) {
        const Tensor to = rows_.rows(0, rows.dim[0]);
        if (rows.dtype == DType::kF32) copy(ctx, to, rows);
        else convert(ctx, to, rows);
      }};
}

std::vector<std::vector<LatentReader::Activation>> LatentReader::read(Context& ctx, int64_t rows, int64_t top) {
  std::vector<std::vector<Activation>> all;
  std::vector<float> host;
  for (int64_t begin = 0; begin < rows; begin += f_.dim[0]) {
    const int64_t end = std::min(rows, begin + f_.dim[0]), latents = f_.dim[1];
    const Tensor f = f_.rows(0, end - begin);
    encode(ctx, f, rows_.rows(begin, end), loaded_.params);
    host.resize(static_cast<size_t>(f.size()));
    copy(ctx, view(host.data(), {end - begin, latents}), f);
    ctx.synchronize();
    for (int64_t r = 0; r < end - begin; ++r) all.push_back(strongest(host.data() + r * latents, latents, top));
  }
  return all;
}

}  // namespace gsae
