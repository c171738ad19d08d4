#include "sae/evaluation.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/checkf.h"
#include "kernels/elementwise.h"
#include "kernels/reconstruction_metrics.h"
#include "kernels/rows.h"
#include "kernels/statistics.h"

namespace gsae {

namespace {

Tensor take_prefix(Tensor flat, int64_t n) { return flat.rows(0, n); }

template <class T> std::vector<T> download(Context& ctx, Tensor t) {
  std::vector<T> host(static_cast<size_t>(t.size()));
  copy(ctx, view(host.data(), {t.size()}), t.reshape({t.size()}));
  ctx.synchronize();
  return host;
}

template <class T> void upload(Context& ctx, Tensor t, const std::vector<T>& host) {
  copy(ctx, t, view(const_cast<T*>(host.data()), {t.size()}));
  ctx.synchronize();  // the host's memory may go
}

// 0, 1, 2-3, 4-7, ...: the first tokens of a context differ most, so that the buckets grow with the position.
size_t position_bucket(int32_t position) {
  return static_cast<size_t>(std::bit_width(static_cast<uint32_t>(position)));
}
int64_t first_position(size_t bucket) { return bucket == 0 ? 0 : int64_t{1} << (bucket - 1); }

// What the contexts of one batch add to the sums.
struct ContextSums {
  double tokens = 0, l0 = 0, error = 0, centred = 0, cosine = 0, norm_ratio = 0, with_norm = 0;
};

}  // namespace

int64_t SaeMetrics::dead() const { return std::count(fired.begin(), fired.end(), int64_t{0}); }

EvaluationWorkspace::EvaluationWorkspace(Arena& arena, int64_t rows, int64_t width, int64_t latents)
    : x(arena.take("evaluated rows", DType::kF32, {rows * width})),
      x_hat(arena.take("reconstructed rows", DType::kF32, {rows * width})),
      metrics(arena.take("metrics of rows", DType::kF64, {rows * kReconstructionMetrics})),
      l0(arena.take("L0 of rows", DType::kF32, {rows})),
      fired(arena.take("firing counts", DType::kI32, {latents})),
      sum(arena.take("sum of rows", DType::kF64, {width})),
      square(arena.take("sum of squares", DType::kF64, {1})),
      index(arena.take("counted rows", DType::kI32, {rows})),
      zeros(arena.take("row zero", DType::kI32, {rows})),
      centre(arena.take("centre", DType::kF32, {width})),
      sae(arena, rows, width, latents) {}

Tensor shaped(Tensor flat, int64_t n, int64_t width) { return flat.rows(0, n * width).reshape({n, width}); }

void SiteMean::add(Context& ctx, Tensor rows, Tensor index, const EvaluationWorkspace& workspace) {
  const int64_t n = index.dim[0], d = rows.dim[1];
  const Tensor x = shaped(workspace.x, n, d), sum = take_prefix(workspace.sum, d);
  gather_rows(ctx, x, rows, index, 1);
  fill_zero(ctx, sum);
  fill_zero(ctx, workspace.square);
  add_moments(ctx, sum, workspace.square, x);
  const auto host = download<double>(ctx, sum);
  for (size_t i = 0; i < host.size(); ++i) sum_[i] += host[i];
  count_ += n;
}

std::vector<float> SiteMean::mean() const {
  std::vector<float> m(sum_.size());
  for (size_t i = 0; i < m.size() && count_ > 0; ++i) m[i] = static_cast<float>(sum_[i] / double(count_));
  return m;
}

SaeEvaluation::SaeEvaluation(const SaeParameters& params, std::vector<float> centre)
    : params_(params),
      centre_(std::move(centre)),
      sum_(static_cast<size_t>(params.width())),
      fired_(static_cast<size_t>(params.latents())) {
  CHECKF(static_cast<int64_t>(centre_.size()) == params.width(), "SaeEvaluation: a centre of {} for width {}",
         centre_.size(), params.width());
}

void SaeEvaluation::add(Context& ctx, Tensor rows, const CountedRows& counted, EvaluationWorkspace& w, bool splice) {
  const int64_t n = counted.index.dim[0], d = params_.width();
  CHECKF(rows.rank == 2 && rows.dim[1] == d, "SaeEvaluation: rows {} for an SAE of width {}", rows, d);
  if (n == 0) return;
  const Tensor x = shaped(w.x, n, d), x_hat = shaped(w.x_hat, n, d), centre = take_prefix(w.centre, d);
  const Tensor sum = take_prefix(w.sum, d), fired = take_prefix(w.fired, params_.latents());
  gather_rows(ctx, x, rows, counted.index, 1);
  fill_zero(ctx, fired);
  reconstruct(ctx, x_hat, x, params_, w.sae, w.l0.rows(0, n), fired, sparse_);
  upload(ctx, centre, centre_);
  reconstruction_metrics(ctx, shaped(w.metrics, n, kReconstructionMetrics), x_hat, x, centre);
  fill_zero(ctx, sum);
  fill_zero(ctx, w.square);
  add_moments(ctx, sum, w.square, x);
  if (splice) scatter_rows(ctx, rows, x_hat, counted.index);
  add_to_host(ctx, counted, w);
}

void SaeEvaluation::add_to_host(Context& ctx, const CountedRows& counted, const EvaluationWorkspace& w) {
  const int64_t n = counted.index.dim[0];
  const auto metrics = download<double>(ctx, shaped(w.metrics, n, kReconstructionMetrics));
  const auto l0 = download<float>(ctx, w.l0.rows(0, n));
  const auto sum = download<double>(ctx, take_prefix(w.sum, params_.width()));
  const auto fired = download<int32_t>(ctx, take_prefix(w.fired, params_.latents()));
  for (size_t i = 0; i < sum.size(); ++i) sum_[i] += sum[i];
  for (size_t i = 0; i < fired.size(); ++i) fired_[i] += fired[i];

  std::vector<ContextSums> contexts(static_cast<size_t>(counted.contexts));
  size_t buckets = 0;
  for (const int32_t p : counted.position) buckets = std::max(buckets, position_bucket(p) + 1);
  std::vector<ContextSums> at(contexts.size() * buckets);  // (contexts, buckets)
  for (int64_t r = 0; r < n; ++r) {
    ContextSums& c = contexts[static_cast<size_t>(counted.context[r])];
    const double* m = metrics.data() + r * kReconstructionMetrics;
    const double norm = std::sqrt(m[kNormSquare]), hat = std::sqrt(m[kHatSquare]);
    c.tokens += 1;
    c.l0 += l0[static_cast<size_t>(r)];
    c.error += m[kErrorSquare];
    c.centred += m[kCentredSquare];
    if (norm > 0 && hat > 0) c.cosine += m[kDot] / (norm * hat);
    if (norm > 0) c.norm_ratio += hat / norm, c.with_norm += 1;
    if (buckets == 0) continue;
    ContextSums& b = at[static_cast<size_t>(counted.context[r]) * buckets + position_bucket(counted.position[r])];
    b.tokens += 1;
    b.l0 += l0[static_cast<size_t>(r)];
    b.error += m[kErrorSquare];
    b.centred += m[kCentredSquare];
  }
  positions_.resize(std::max(positions_.size(), buckets));
  for (size_t i = 0; i < at.size(); ++i) {
    if (at[i].tokens == 0) continue;
    Positions& p = positions_[i % buckets];
    p.tokens += static_cast<int64_t>(at[i].tokens);
    p.l0.add(at[i].l0, at[i].tokens);
    p.fvu.add(at[i].error, at[i].centred);
  }
  for (const ContextSums& c : contexts) {
    if (c.tokens == 0) continue;
    l0_.add(c.l0, c.tokens);
    mse_.add(c.error, c.tokens);
    fvu_.add(c.error, c.centred);
    cosine_.add(c.cosine, c.tokens);
    norm_ratio_.add(c.norm_ratio, c.with_norm);
    error_ += c.error;
    centred_ += c.centred;
    ++contexts_;
  }
  tokens_ += n;
}

SaeMetrics SaeEvaluation::result() const {
  SaeMetrics m;
  m.tokens = tokens_, m.contexts = contexts_;
  m.l0 = l0_.result(), m.mse = mse_.result(), m.cosine = cosine_.result(), m.norm_ratio = norm_ratio_.result();
  m.fired = fired_;
  for (size_t i = 0; i < positions_.size(); ++i)
    if (const Positions& p = positions_[i]; p.tokens > 0)
      m.by_position.push_back({first_position(i), first_position(i + 1) - 1, p.tokens, p.l0.result(), p.fvu.result()});
  // sum |x - mean|^2 = sum |x - centre|^2 - N |mean - centre|^2
  double shift = 0;
  for (size_t i = 0; i < sum_.size() && tokens_ > 0; ++i) {
    const double by = sum_[i] / double(tokens_) - double(centre_[i]);
    shift += by * by;
  }
  m.fvu = {error_ / (centred_ - double(tokens_) * shift), fvu_.result().error};
  return m;
}

}  // namespace gsae
