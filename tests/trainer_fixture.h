#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <vector>

#include "kernels/philox.h"
#include "sae/sae_trainer.h"
#include "tests/harness.h"

namespace gsae::test {

// Rows made of a few of `directions` random unit vectors each, with positive coefficients, around a mean: what an SAE
// is for. Normalised to a mean squared norm of one. A counter-based generator: any row of any data set, the same
// everywhere.
class Dictionary {
 public:
  Dictionary(int64_t width, int64_t directions, double active, uint64_t seed)
      : width_(width), directions_(directions), active_(active), seed_(seed), atoms_(directions * width), mean_(width) {
    const Random random(seed, Random::kInitDecoder);
    for (int64_t i = 0; i < directions; ++i) {
      double square = 0;
      for (int64_t c = 0; c < width; ++c) {
        double& a = atoms_[i * width + c];
        a = normal(random, static_cast<uint64_t>(i * width + c));
        square += a * a;
      }
      for (int64_t c = 0; c < width; ++c) atoms_[i * width + c] /= std::sqrt(square);
    }
    for (int64_t c = 0; c < width; ++c)
      mean_[c] = normal(random, static_cast<uint64_t>(directions * width + c)) / std::sqrt(double(width));
    scale_ = 1;
    double square = 0;
    for (const float v : rows(0, 4096)) square += double(v) * v;
    scale_ = 1 / std::sqrt(square / 4096);
  }

  std::vector<float> rows(int64_t first, int64_t n) const {
    const Random random(seed_, Random::kSampleRows);
    std::vector<float> x(n * width_);
    for (int64_t r = 0; r < n; ++r) {
      std::vector<double> row = mean_;
      for (int64_t i = 0; i < directions_; ++i) {
        const auto words = random.words(static_cast<uint64_t>((first + r) * directions_ + i));
        if (words[0] * 0x1p-32 >= active_ / double(directions_)) continue;
        for (int64_t c = 0; c < width_; ++c) row[c] += (0.5 + words[1] * 0x1p-32) * atoms_[i * width_ + c];
      }
      for (int64_t c = 0; c < width_; ++c) x[r * width_ + c] = static_cast<float>(scale_ * row[c]);
    }
    return x;
  }

 private:
  static double normal(const Random& random, uint64_t index) {  // Box & Muller
    const auto w = random.words(index);
    return std::sqrt(-2 * std::log((w[0] + 1.0) * 0x1p-32)) * std::cos(2 * std::numbers::pi * w[1] * 0x1p-32);
  }

  int64_t width_, directions_;
  double active_;
  uint64_t seed_;
  std::vector<double> atoms_, mean_;
  double scale_;
};

// Memory on the context's device, full of NaN: what is read must have been written.
inline Buffer nan_memory(Context& ctx, size_t bytes) {
  Buffer memory(ctx.device(), bytes);
  const std::vector<int32_t> nan(bytes / sizeof(int32_t), -1);
  Tensor all = view(reinterpret_cast<int32_t*>(memory.data()), {static_cast<int64_t>(nan.size())});
  all.device = ctx.device();
  upload(ctx, all, nan);
  return memory;
}

// Sizes of a step in tiles of so many rows; otherwise as a run on the CPU has them.
inline StepSizes tiles_of(int64_t rows, int64_t batch, int64_t width, int64_t latents) {
  StepSizes s = step_sizes(Device::kCpu, batch, width, latents);
  s.rows = std::min(rows, batch);
  return s;
}

// A trainer on memory of its own, on the context's device.
struct TrainerFixture {
  Context ctx;
  Buffer state_memory, workspace_memory;
  std::unique_ptr<SaeTrainer> trainer;

  TrainerFixture(const Context& on, const Recipe& recipe, int64_t tile, int64_t width, int64_t latents, DType precision,
                 StepKind kind = StepKind::kDense)
      : TrainerFixture(on, recipe, tiles_of(tile, recipe.batch, width, latents), width, latents, precision, kind) {}
  TrainerFixture(const Context& on, const Recipe& recipe, const StepSizes& sizes, int64_t width, int64_t latents,
                 DType precision, StepKind kind)
      : ctx(on) {
    Arena state_plan, workspace_plan;
    SaeTrainer(state_plan, workspace_plan, recipe, sizes, width, latents, precision);
    state_memory = nan_memory(ctx, state_plan.used());
    workspace_memory = nan_memory(ctx, workspace_plan.used());
    Arena state(state_memory), workspace(workspace_memory);
    trainer = std::make_unique<SaeTrainer>(state, workspace, recipe, sizes, width, latents, precision, kind);
  }

  void feed(const std::vector<float>& rows) { upload(ctx, trainer->workspace().x, rows); }
};

inline std::vector<float> values(Context& ctx, Tensor t) { return download<float>(ctx, t); }

// in (rows, columns), transposed
inline std::vector<float> transposed(const std::vector<float>& in, int64_t rows, int64_t columns) {
  std::vector<float> out(in.size());
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[c * rows + r] = in[r * columns + c];
  return out;
}

// The parameters of an SAE, on the host, W_enc (d, F) as files have it; or what else there is of each of them.
struct HostParameters {
  int64_t d, latents;
  std::vector<float> W_enc, W_dec, b_enc, b_dec, threshold;

  HostParameters(Context& ctx, const LatentTensors& p, Tensor of_b_dec)
      : d(p.width()),
        latents(p.latents()),
        W_enc(transposed(values(ctx, p.W_enc), latents, d)),
        W_dec(values(ctx, p.W_dec)),
        b_enc(values(ctx, p.b_enc)),
        b_dec(values(ctx, of_b_dec)),
        threshold(values(ctx, p.threshold)) {}
  HostParameters(Context& ctx, const SaeParameters& p)
      : d(p.width()),
        latents(p.latents()),
        W_enc(values(ctx, p.W_enc)),
        W_dec(values(ctx, p.W_dec)),
        b_enc(values(ctx, p.b_enc)),
        b_dec(values(ctx, p.b_dec)),
        threshold(values(ctx, p.threshold)) {}
  HostParameters(Context& ctx, const SaeState& s) : HostParameters(ctx, s.p(), s.b_dec) {}
  bool operator==(const HostParameters&) const = default;
};

// What the SAE makes of rows x (n, d), in doubles, from the formula: z = (x - b_dec) W_enc + b_enc.
struct Reference {
  std::vector<double> x_hat, error, l0;  // (n, d), (n), (n)
  std::vector<int64_t> fired;            // (F)
  double nearest = HUGE_VAL;             // the smallest |z - theta|: nearer than rounding, f32 may decide otherwise

  Reference(const std::vector<float>& x, const HostParameters& p) {
    const int64_t d = p.d, latents = p.latents, n = static_cast<int64_t>(x.size()) / d;
    const float *W_enc = p.W_enc.data(), *W_dec = p.W_dec.data(), *b_enc = p.b_enc.data(), *b_dec = p.b_dec.data(),
                *theta = p.threshold.data();
    x_hat.resize(n * d), error.resize(n), l0.resize(n), fired.resize(latents);
    std::vector<double> z(latents);
    for (int64_t r = 0; r < n; ++r) {
      for (int64_t i = 0; i < latents; ++i) z[i] = b_enc[i];
      for (int64_t c = 0; c < d; ++c)
        for (int64_t i = 0; i < latents; ++i) z[i] += (double(x[r * d + c]) - b_dec[c]) * W_enc[c * latents + i];
      for (int64_t c = 0; c < d; ++c) x_hat[r * d + c] = b_dec[c];
      for (int64_t i = 0; i < latents; ++i) {
        nearest = std::min(nearest, std::fabs(z[i] - theta[i]));
        if (!(z[i] > theta[i])) continue;
        ++l0[r], ++fired[i];
        for (int64_t c = 0; c < d; ++c) x_hat[r * d + c] += z[i] * W_dec[i * d + c];
      }
      for (int64_t c = 0; c < d; ++c) error[r] += std::pow(x_hat[r * d + c] - x[r * d + c], 2);
    }
  }
};

inline double mean(const std::vector<double>& v) {
  double sum = 0;
  for (const double e : v) sum += e;
  return sum / double(v.size());
}

// sum |x - mean(x)|^2 / n
inline double variance(const std::vector<float>& x, int64_t d) {
  const int64_t n = static_cast<int64_t>(x.size()) / d;
  std::vector<double> centre(d);
  for (size_t i = 0; i < x.size(); ++i) centre[i % d] += x[i] / double(n);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += std::pow(x[i] - centre[i % d], 2);
  return sum / double(n);
}

}  // namespace gsae::test
