#include "sae/start.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/convert.h"
#include "kernels/elementwise.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"
#include "kernels/philox.h"
#include "kernels/rows.h"

namespace gsae {

namespace {

// Host memory that holds a tensor while it is prepared.
struct HostTensor {
  std::vector<float> values;
  Tensor tensor;
  explicit HostTensor(std::initializer_list<int64_t> shape) {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    values.resize(n);
    tensor = view(values.data(), shape);
  }
};

void zero_everything(Context& ctx, SaeState& s) {
  for (const Tensor t :
       {s.p.b_enc, s.p.b_dec, s.second_moment.W_enc, s.second_moment.W_dec, s.second_moment.b_enc,
        s.second_moment.b_dec, s.second_moment.threshold, s.rates, s.control, s.fired, s.idle, s.fired_total, s.log})
    fill_zero(ctx, t);
}

// He-uniform: every element uniform in [-a, a]; the rows are scaled to unit norm, so a does not matter.
void random_unit_rows(float* rows, int64_t count, int64_t d, uint64_t seed) {
  const Random random(seed, Random::kInitDecoder);
  parallel_for(count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = rows + i * d;
      double square = 0;
      for (int64_t c = 0; c < d; ++c) {
        row[c] = 2 * random.uniform(static_cast<uint64_t>(i * d + c)) - 1;
        square += double(row[c]) * row[c];
      }
      const float inverse = static_cast<float>(1 / std::sqrt(square));
      for (int64_t c = 0; c < d; ++c) row[c] *= inverse;
    }
  });
}

void transpose(float* out, const float* in, int64_t rows, int64_t columns, float scale) {
  constexpr int64_t kTile = 32;
  parallel_for(rows, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t c0 = 0; c0 < columns; c0 += kTile)
      for (int64_t c = c0; c < std::min(columns, c0 + kTile); ++c)
        for (int64_t r = begin; r < end; ++r) out[c * rows + r] = scale * in[r * columns + c];
  });
}

// The mean of the rows of x (n, d), on the host.
std::vector<float> mean_of(const std::vector<float>& x, int64_t n, int64_t d) {
  std::vector<double> sum(d);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t c = 0; c < d; ++c) sum[c] += x[r * d + c];
  std::vector<float> mean(d);
  for (int64_t c = 0; c < d; ++c) mean[c] = static_cast<float>(sum[c] / double(n));
  return mean;
}

}  // namespace

void refresh_copies(Context& ctx, SaeState& s) {
  if (s.precision() != DType::kBF16) return;
  convert(ctx, s.W_enc16, s.p.W_enc);
  convert(ctx, s.W_dec16, s.p.W_dec);
}

void start_from(Context& ctx, SaeState& s, const SaeParameters& given) {
  zero_everything(ctx, s);
  copy(ctx, s.p.W_enc, given.W_enc);
  copy(ctx, s.p.W_dec, given.W_dec);
  copy(ctx, s.p.b_enc, given.b_enc);
  copy(ctx, s.p.b_dec, given.b_dec);
  copy(ctx, s.p.threshold, given.threshold);
  refresh_copies(ctx, s);
  ctx.synchronize();  // the host's memory may go
}

void start_training(Context& ctx, SaeState& s, DenseWorkspace& w, const Recipe& recipe) {
  const int64_t d = s.p.width(), latents = s.p.latents();
  zero_everything(ctx, s);
  float theta = static_cast<float>(recipe.threshold), gain = 1;
  HostTensor W_dec({latents, d}), W_enc({d, latents}), thetas({latents});
  random_unit_rows(W_dec.values.data(), latents, d, recipe.seed);
  transpose(W_enc.values.data(), W_dec.values.data(), latents, d, 1);
  copy(ctx, s.p.W_dec, W_dec.tensor);
  copy(ctx, s.p.W_enc, W_enc.tensor);

  if (recipe.start == Recipe::Start::kData) {
    // One tile of rows is enough: the quantile is over tile * F values, and the factor over tile * d.
    const int64_t n = std::min(w.z.dim[0], w.x.dim[0]);
    HostTensor x({w.x.dim[0], d}), z({n, latents}), x_hat({n, d}), mean({d});
    copy(ctx, x.tensor, w.x);
    ctx.synchronize();
    mean.values = mean_of(x.values, w.x.dim[0], d);
    mean.tensor = view(mean.values.data(), {d});
    copy(ctx, s.p.b_dec, mean.tensor);

    const Tensor rows = w.x_hat.rows(0, n), zn = w.z.rows(0, n);  // x - mean, in f32
    subtract_bias(ctx, rows, w.x.rows(0, n), s.p.b_dec);
    matmul(ctx, zn, rows, s.p.W_enc);
    copy(ctx, z.tensor, zn);
    ctx.synchronize();
    const auto nth =
        z.values.begin() + std::clamp<int64_t>(std::llround(recipe.start_l0 * double(n)), 1, n * latents - 1);
    std::vector<float> sorted = z.values;
    auto at = sorted.begin() + (nth - z.values.begin());
    std::nth_element(sorted.begin(), at, sorted.end(), std::greater<>());
    theta = std::max(*at, 1e-6f);

    std::fill(thetas.values.begin(), thetas.values.end(), theta);
    copy(ctx, s.p.threshold, thetas.tensor);
    const Tensor f = w.df.rows(0, n);
    jump_relu(ctx, f, zn, s.p.threshold, {}, {});  // b_enc is zero
    matmul(ctx, rows, f, s.p.W_dec);
    copy(ctx, x_hat.tensor, rows);
    ctx.synchronize();
    double dot = 0, square = 0;
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < d; ++c) {
        const double h = x_hat.values[r * d + c];
        dot += h * (x.values[r * d + c] - mean.values[c]);
        square += h * h;
      }
    gain = square > 0 && dot > 0 ? static_cast<float>(dot / square) : 1;
  }

  multiply(ctx, s.p.W_enc, gain);
  std::fill(thetas.values.begin(), thetas.values.end(), theta * gain);
  copy(ctx, s.p.threshold, thetas.tensor);
  ctx.synchronize();
  refresh_copies(ctx, s);
}

}  // namespace gsae
