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
#include "sae/transposed.h"

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
  const LatentTensors& v = s.latents.v;
  for (const Tensor t : {s.p().b_enc, s.b_dec, v.W_enc, v.W_dec, v.b_enc, v.threshold, s.latents.stamp, s.b_dec_moment,
                         s.rates, s.clock, s.control, s.fired, s.idle, s.fired_total, s.step_l0, s.log})
    fill_zero(ctx, t);
}

// Rows [first, first + count) of He-uniform ones: every element uniform in [-a, a]; the rows are scaled to unit norm,
// so a does not matter.
void random_unit_rows(float* rows, int64_t first, int64_t count, int64_t d, uint64_t seed) {
  const Random random(seed, Random::kInitDecoder);
  parallel_for(count, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* row = rows + i * d;
      double square = 0;
      for (int64_t c = 0; c < d; ++c) {
        row[c] = 2 * random.uniform(static_cast<uint64_t>((first + i) * d + c)) - 1;
        square += double(row[c]) * row[c];
      }
      const float inverse = static_cast<float>(1 / std::sqrt(square));
      for (int64_t c = 0; c < d; ++c) row[c] *= inverse;
    }
  });
}

// W_dec = random rows, W_enc = the same; a part at a time, as the host has no room for a wide SAE.
void start_weights(Context& ctx, const LatentTensors& p, uint64_t seed) {
  constexpr int64_t kPart = 4096;
  const int64_t F = p.latents(), d = p.width();
  HostTensor part({std::min(F, kPart), d});
  for (int64_t first = 0; first < F; first += kPart) {
    const int64_t count = std::min(kPart, F - first);
    random_unit_rows(part.values.data(), first, count, d, seed);
    copy(ctx, p.W_dec.rows(first, first + count), part.tensor.rows(0, count));
    copy(ctx, p.W_enc.rows(first, first + count), part.tensor.rows(0, count));
    ctx.synchronize();  // before the part is written again
  }
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

void set_thresholds(Context& ctx, Tensor threshold, float theta) {
  HostTensor thetas({threshold.dim[0]});
  std::fill(thetas.values.begin(), thetas.values.end(), theta);
  copy(ctx, threshold, thetas.tensor);
  ctx.synchronize();
}

// Of a tile of so many rows and latents: those that theta comes from. The quantile of 8M values is as good as of all.
int64_t sampled_latents(int64_t rows, int64_t latents) {
  constexpr int64_t kMostValues = 1 << 23;
  return std::clamp<int64_t>(kMostValues / rows, 1, latents);
}

// The start from data, with W_enc = W_dec in place: b_dec, theta for that W_enc, and the factor. One tile of rows is
// enough: the quantile is over rows * latents values, and the factor over rows * d.
struct DataStart {
  float theta = 0, gain = 1;

  DataStart(Context& ctx, const SaeState& s, const StepWorkspace& w, const Recipe& recipe) {
    const int64_t batch = w.x.dim[0], d = s.width(), F = s.latent_count(), n = w.dense.x_hat.dim[0],
                  tile = w.dense.grad.latents(), sampled = sampled_latents(n, tile);
    HostTensor x({batch, d}), mean({d});
    copy(ctx, x.tensor, w.x);
    ctx.synchronize();
    mean.values = mean_of(x.values, batch, d);
    mean.tensor = view(mean.values.data(), {d});
    copy(ctx, s.b_dec, mean.tensor);

    const Tensor rows = w.dense.x_hat, of_tile = w.dense.z;  // rows: x - mean, in f32
    subtract_bias(ctx, rows, w.x.rows(0, n), s.b_dec);
    HostTensor z({n, sampled});
    const Tensor first = of_tile.rows(0, n * sampled).reshape({n, sampled});
    matmul(ctx, first, rows, s.p().W_enc.rows(0, sampled), {.transpose_b = true});
    copy(ctx, z.tensor, first);
    ctx.synchronize();
    const double wanted = recipe.start_l0 * double(n) * double(sampled) / double(F);
    const auto at = z.values.begin() + std::clamp<int64_t>(std::llround(wanted), 1, n * sampled - 1);
    std::nth_element(z.values.begin(), at, z.values.end(), std::greater<>());
    theta = std::max(*at, 1e-6f);
    set_thresholds(ctx, s.p().threshold, theta);

    HostTensor x_hat({n, d});
    const Tensor sum = w.dense.df.rows(0, n * d).reshape({n, d});
    for (int64_t i = 0; i < F; i += tile) {
      const int64_t count = std::min(tile, F - i);
      const Tensor f = of_tile.rows(0, n * count).reshape({n, count});
      matmul(ctx, f, rows, s.p().W_enc.rows(i, i + count), {.transpose_b = true});
      jump_relu(ctx, f, f, s.p().threshold.rows(i, i + count), {}, {});  // b_enc is zero
      matmul(ctx, sum, f, s.p().W_dec.rows(i, i + count), {.accumulate = i > 0});
    }
    copy(ctx, x_hat.tensor, sum);
    ctx.synchronize();
    double dot = 0, square = 0;
    for (int64_t r = 0; r < n; ++r)
      for (int64_t c = 0; c < d; ++c) {
        const double h = x_hat.values[r * d + c];
        dot += h * (x.values[r * d + c] - mean.values[c]);
        square += h * h;
      }
    if (square > 0 && dot > 0) gain = static_cast<float>(dot / square);
  }
};

}  // namespace

int64_t start_bytes(const StepSizes& s, int64_t width) {
  const int64_t values = s.batch * width + s.rows * (sampled_latents(s.rows, s.latents) + width);
  return values * static_cast<int64_t>(sizeof(float));
}

void refresh_copies(Context& ctx, SaeState& s) {
  if (s.precision() != DType::kBF16) return;
  convert(ctx, s.latents.W_enc16, s.p().W_enc);
  convert(ctx, s.latents.W_dec16, s.p().W_dec);
}

void start_from(Context& ctx, SaeState& s, const SaeParameters& given) {
  zero_everything(ctx, s);
  load_transposed(ctx, s.p().W_enc, given.W_enc);
  copy(ctx, s.p().W_dec, given.W_dec);
  copy(ctx, s.p().b_enc, given.b_enc);
  copy(ctx, s.b_dec, given.b_dec);
  copy(ctx, s.p().threshold, given.threshold);
  refresh_copies(ctx, s);
  ctx.synchronize();  // the host's memory may go
}

void start_training(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe) {
  zero_everything(ctx, s);
  start_weights(ctx, s.p(), recipe.seed);
  if (recipe.start == Recipe::Start::kData) {
    const DataStart start(ctx, s, w, recipe);
    multiply(ctx, s.p().W_enc, start.gain);
    set_thresholds(ctx, s.p().threshold, start.theta * start.gain);
  } else {
    set_thresholds(ctx, s.p().threshold, static_cast<float>(recipe.threshold));
  }
  refresh_copies(ctx, s);
}

}  // namespace gsae
