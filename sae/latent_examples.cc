#include "sae/latent_examples.h"

#include <algorithm>
#include <cmath>

#include "kernels/checkf.h"
#include "kernels/rows.h"

namespace gsae {

namespace {

template <class T> std::vector<T> download(Context& ctx, Tensor t) {
  std::vector<T> host(static_cast<size_t>(t.size()));
  copy(ctx, view(host.data(), {t.size()}), t.reshape({t.size()}));
  ctx.synchronize();
  return host;
}

std::vector<LatentExample> pairs(const std::vector<float>& values, const std::vector<int32_t>& rows, int64_t begin,
                                 int64_t end) {
  std::vector<LatentExample> examples;
  for (int64_t k = begin; k < end && rows[static_cast<size_t>(k)] >= 0; ++k)
    examples.push_back({values[static_cast<size_t>(k)], rows[static_cast<size_t>(k)]});
  return examples;
}

}  // namespace

LatentSummaries::LatentSummaries(Context& ctx, const Examples& e)
    : count_(download<int32_t>(ctx, e.count)),
      scale_(download<int32_t>(ctx, e.scale)),
      histogram_(download<int32_t>(ctx, e.histogram)),
      top_row_(download<int32_t>(ctx, e.top_row)),
      band_row_(download<int32_t>(ctx, e.band_row)),
      sum_(download<double>(ctx, e.sum)),
      top_value_(download<float>(ctx, e.top_value)),
      band_value_(download<float>(ctx, e.band_value)) {
  if (download<int32_t>(ctx, e.faults)[0] != 0)
    throw Error("an activation of the SAE is NaN or infinite: the site's activations are beyond what f32 holds");
}

LatentSummary LatentSummaries::of(int64_t i) const {
  CHECKF(i >= 0 && i < latents(), "LatentSummaries: latent {} of {}", i, latents());
  LatentSummary s{.count = count(i), .sum = sum(i)};
  if (s.count == 0) return s;
  s.scale = std::ldexp(1.0, scale_[static_cast<size_t>(i)]);
  const auto histogram = histogram_.begin() + i * Examples::kBins;
  std::copy(histogram, histogram + Examples::kBins, s.histogram.begin());
  s.top = pairs(top_value_, top_row_, i * Examples::kTop, (i + 1) * Examples::kTop);
  for (int64_t b = 0; b < Examples::kBands; ++b) {
    const int64_t begin = (i * Examples::kBands + b) * Examples::kPerBand;
    s.bands[static_cast<size_t>(b)] = pairs(band_value_, band_row_, begin, begin + Examples::kPerBand);
  }
  return s;
}

CollectionWorkspace::CollectionWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t latents)
    : x(arena.take("rows that are encoded", DType::kF32, {rows * width})), sae(arena, latents, rows) {}

void collect_examples(Context& ctx, const Examples& examples, Tensor rows, Tensor index, Tensor row, int64_t T,
                      const SaeParameters& sae, const CollectionWorkspace& w, uint64_t seed) {
  const int64_t n = index.dim[0], d = sae.width(), latents = sae.latents(), tile = w.sae.f.size() / latents;
  CHECKF(rows.rank == 2 && rows.dim[1] == d, "collect_examples: rows {} for an SAE of width {}", rows, d);
  CHECKF(tile > 0 && n * d <= w.x.size(), "collect_examples: {} rows are too many for the workspace", n);
  const Tensor x = w.x.rows(0, n * d).reshape({n, d});
  gather_rows(ctx, x, rows, index, 1);
  for (int64_t begin = 0; begin < n; begin += tile) {
    const int64_t end = std::min(n, begin + tile);
    const Tensor f = w.sae.f.rows(0, (end - begin) * latents).reshape({end - begin, latents});
    encode(ctx, f, x.rows(begin, end), sae);
    add_examples(ctx, examples, f, row.rows(begin, end), T, seed);
  }
}

SaeParameters select_latents(Context& ctx, const SaeParameters& sae, std::span<const int64_t> latents, Buffer& memory) {
  const int64_t d = sae.width(), F = sae.latents(), count = static_cast<int64_t>(latents.size());
  for (const int64_t i : latents) CHECKF(i >= 0 && i < F, "select_latents: latent {} of {}", i, F);
  Arena plan;
  SaeParameters(plan, d, count);
  const Buffer host_memory(Device::kCpu, plan.used());
  memory = Buffer(ctx.device(), plan.used());
  Arena host_arena(host_memory), arena(memory);
  const SaeParameters host(host_arena, d, count), out(arena, d, count);

  // The columns of W_enc: some of its rows at a time.
  const int64_t at_a_time = std::clamp<int64_t>((int64_t{64} << 20) / (F * 4), 1, d);
  std::vector<float> part;
  for (int64_t begin = 0; begin < d; begin += at_a_time) {
    const int64_t end = std::min(d, begin + at_a_time);
    part = download<float>(ctx, sae.W_enc.rows(begin, end));
    for (int64_t c = begin; c < end; ++c)
      for (int64_t k = 0; k < count; ++k)
        host.W_enc.data<float>()[c * count + k] = part[static_cast<size_t>((c - begin) * F + latents[k])];
  }
  const auto b_enc = download<float>(ctx, sae.b_enc), threshold = download<float>(ctx, sae.threshold);
  for (int64_t k = 0; k < count; ++k) {
    host.b_enc.data<float>()[k] = b_enc[static_cast<size_t>(latents[k])];
    host.threshold.data<float>()[k] = threshold[static_cast<size_t>(latents[k])];
    copy(ctx, host.W_dec.rows(k, k + 1), sae.W_dec.rows(latents[k], latents[k] + 1));
  }
  copy(ctx, host.b_dec, sae.b_dec);
  ctx.synchronize();
  for (const auto tensor : {&SaeParameters::W_enc, &SaeParameters::W_dec, &SaeParameters::b_enc, &SaeParameters::b_dec,
                            &SaeParameters::threshold})
    copy(ctx, out.*tensor, host.*tensor);
  ctx.synchronize();
  return out;
}

}  // namespace gsae
