#include "tools/logit_attribution.h"

#include <algorithm>
#include <numeric>

#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

// The type of a product with the model's matrices: the CPU widens them, a GPU has them as the model computes.
DType operand_type(Device device, const Gemma2& model) {
  return device == Device::kCpu ? DType::kF32 : model.compute();
}

// 1 + w of a norm, on the host.
std::vector<float> gains(Context& ctx, Tensor weight) {
  std::vector<float> gains(static_cast<size_t>(weight.size()));
  std::vector<BF16> narrow(weight.dtype == DType::kBF16 ? gains.size() : 0);
  copy(ctx, narrow.empty() ? view(gains.data(), {weight.size()}) : view(narrow.data(), {weight.size()}), weight);
  ctx.synchronize();
  for (size_t i = 0; i < narrow.size(); ++i) gains[i] = to_float(narrow[i]);
  for (float& g : gains) g += 1;
  return gains;
}

void multiply_rows(std::vector<float>& rows, const std::vector<float>& by) {
  for (size_t i = 0; i < rows.size(); ++i) rows[i] *= by[i % by.size()];
}

LogitAttribution summarise(const float* logits, int64_t V, int64_t k) {
  LogitAttribution a;
  std::vector<int32_t> order(static_cast<size_t>(V));
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + std::min(k, V);
  const auto take = [&](auto&& before) {
    std::partial_sort(order.begin(), end, order.end(),
                      [&](int32_t i, int32_t j) { return logits[i] != logits[j] ? before(i, j) : i < j; });
    std::vector<TokenEffect> taken;
    for (auto t = order.begin(); t != end; ++t) taken.push_back({*t, logits[*t]});
    return taken;
  };
  a.top = take([&](int32_t i, int32_t j) { return logits[i] > logits[j]; });
  a.bottom = take([&](int32_t i, int32_t j) { return logits[i] < logits[j]; });
  a.lowest = a.bottom[0].logit, a.highest = a.top[0].logit;
  const double width = (double(a.highest) - a.lowest) / LogitAttribution::kBins;
  for (int64_t t = 0; t < V; ++t) {
    const auto bin = width > 0 ? static_cast<int64_t>((double(logits[t]) - a.lowest) / width) : 0;
    ++a.histogram[static_cast<size_t>(std::clamp<int64_t>(bin, 0, LogitAttribution::kBins - 1))];
  }
  return a;
}

int64_t widest(const Gemma2& model) { return std::max(model.config().width, model.site_width(Site::kAtt)); }

}  // namespace

bool has_logit_attribution(Site site) { return site != Site::kMlpIn; }

int64_t AttributionMemory::tile(const Gemma2& model) {
  return std::clamp<int64_t>((int64_t{32} << 20) / (model.config().vocab * 4), 4, 64);
}

AttributionMemory::AttributionMemory(Arena& arena, const Gemma2& model)
    : x(arena.take("decoder rows", DType::kF32, {tile(model) * widest(model)})),
      h(arena.take("decoder rows for products", DType::kF32, {tile(model) * widest(model)})),
      logits(arena.take("logits of latents", DType::kF32,
                        {tile(model) * std::max(model.config().vocab, model.config().width)})) {}

std::vector<LogitAttribution> attribute_logits(Context& ctx, const Gemma2& model, Site site, int64_t layer, Tensor rows,
                                               int64_t k, const AttributionMemory& memory) {
  CHECKF(rows.rank == 2 && rows.device == Device::kCpu && rows.dim[1] == model.site_width(site),
         "attribute_logits: rows {} of site {}, which has width {}", rows, name(site), model.site_width(site));
  if (!has_logit_attribution(site)) return {};
  const GemmaConfig& c = model.config();
  const LayerWeights& w = model.weights().layers.at(static_cast<size_t>(layer));
  const auto final_gains = gains(ctx, model.weights().final_norm);
  const auto post_gains = site == Site::kAtt ? gains(ctx, w.norm_post_att) : std::vector<float>{};
  const DType type = operand_type(ctx.device(), model);
  const int64_t tile = AttributionMemory::tile(model), d = c.width;
  // out = rows weight^T
  const auto product = [&](Tensor out, Tensor from, Tensor weight) {
    const int64_t n = from.dim[0], width = from.dim[1];
    const Tensor x = memory.x.rows(0, n * width).reshape({n, width});
    Tensor h = memory.h.rows(0, n * width).reshape({n, width});
    copy(ctx, x, from);
    h.dtype = type;
    convert(ctx, h, x);
    linear(ctx, out, h, {&weight, 1});
  };
  std::vector<LogitAttribution> all(static_cast<size_t>(rows.dim[0]));
  std::vector<float> u, logits;
  for (int64_t begin = 0; begin < rows.dim[0]; begin += tile) {
    const int64_t n = std::min(tile, rows.dim[0] - begin);
    u.resize(static_cast<size_t>(n * d));
    const Tensor stream = view(u.data(), {n, d});
    if (site == Site::kAtt) {
      const Tensor projected = memory.logits.rows(0, n * d).reshape({n, d});
      product(projected, rows.rows(begin, begin + n), w.o);
      copy(ctx, stream, projected);
      ctx.synchronize();
      multiply_rows(u, post_gains);
    } else {
      copy(ctx, stream, rows.rows(begin, begin + n));
    }
    ctx.synchronize();
    multiply_rows(u, final_gains);
    const Tensor out = memory.logits.rows(0, n * c.vocab).reshape({n, c.vocab});
    product(out, stream, model.weights().embedding);
    logits.resize(static_cast<size_t>(n * c.vocab));
    copy(ctx, view(logits.data(), {n, c.vocab}), out);
    ctx.synchronize();
    parallel_for(n, 1, [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r)
        all[static_cast<size_t>(begin + r)] = summarise(logits.data() + r * c.vocab, c.vocab, k);
    });
  }
  return all;
}

}  // namespace gsae
