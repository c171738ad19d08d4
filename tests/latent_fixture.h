#pragma once

#include <cmath>
#include <vector>

#include "kernels/adam.h"
#include "kernels/latent_update.h"
#include "tests/harness.h"
#include "tests/values_on_device.h"

// For tests of the ops that change latents: their tensors on the host, on a device, and the step in doubles.

namespace gsae::test {

constexpr double kUnit = 0x1p-24;  // half an ulp of f32

inline std::vector<float> in_bf16(std::vector<float> v) {
  for (float& x : v) x = to_float(to_bf16(x));
  return v;
}

inline std::vector<float> unit_rows(int64_t rows, int64_t d, uint32_t seed) {
  auto w = uniform(rows * d, seed, DType::kF32, -1, 1);
  for (int64_t i = 0; i < rows; ++i) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double(w[i * d + c]) * w[i * d + c];
    for (int64_t c = 0; c < d; ++c) w[i * d + c] = static_cast<float>(w[i * d + c] / std::sqrt(square));
  }
  return w;
}

template <class T> struct PerLatent {
  std::vector<T> W_enc, W_dec, b_enc, threshold;

  PerLatent() = default;
  PerLatent(int64_t latents, int64_t d, T value = 0)
      : W_enc(latents * d, value), W_dec(latents * d, value), b_enc(latents, value), threshold(latents, value) {}
  template <class U>
  explicit PerLatent(const PerLatent<U>& o)
      : W_enc(o.W_enc.begin(), o.W_enc.end()),
        W_dec(o.W_dec.begin(), o.W_dec.end()),
        b_enc(o.b_enc.begin(), o.b_enc.end()),
        threshold(o.threshold.begin(), o.threshold.end()) {}
  bool operator==(const PerLatent&) const = default;
};

// Parameters, or with other bounds moments or gradients.
inline PerLatent<float> uniform_latents(int64_t latents, int64_t d, uint32_t seed, float lo, float hi) {
  PerLatent<float> x;
  x.W_enc = uniform(latents * d, seed, DType::kF32, lo, hi);
  x.W_dec = uniform(latents * d, seed + 1, DType::kF32, lo, hi);
  x.b_enc = uniform(latents, seed + 2, DType::kF32, lo, hi);
  x.threshold = uniform(latents, seed + 3, DType::kF32, lo, hi);
  return x;
}
inline PerLatent<float> random_parameters(int64_t latents, int64_t d, uint32_t seed) {
  PerLatent<float> p = uniform_latents(latents, d, seed, -1, 1);
  p.W_dec = unit_rows(latents, d, seed + 1);
  p.threshold = uniform(latents, seed + 3, DType::kF32, 0.1f, 1);
  return p;
}

class GuardedLatents {
 public:
  GuardedLatents(Context& ctx, int64_t latents, int64_t d, const PerLatent<float>& x)
      : W_enc_(ctx, DType::kF32, {latents, d}, x.W_enc),
        W_dec_(ctx, DType::kF32, {latents, d}, x.W_dec),
        b_enc_(ctx, DType::kF32, {latents}, x.b_enc),
        threshold_(ctx, DType::kF32, {latents}, x.threshold) {}
  operator LatentTensors() const { return {W_enc_, W_dec_, b_enc_, threshold_}; }
  PerLatent<float> read() {
    PerLatent<float> x;
    x.W_enc = W_enc_.read(), x.W_dec = W_dec_.read(), x.b_enc = b_enc_.read(), x.threshold = threshold_.read();
    return x;
  }

 private:
  Guarded W_enc_, W_dec_, b_enc_, threshold_;
};

struct GuardedState {
  GuardedState(Context& ctx, int64_t latents, int64_t d, const PerLatent<float>& parameters,
               const PerLatent<float>& moments, const std::vector<int64_t>& stamps, bool copies = true)
      : p(ctx, latents, d, parameters),
        v(ctx, latents, d, moments),
        W_enc16(ctx, DType::kBF16, {latents, d}, parameters.W_enc),
        W_dec16(ctx, DType::kBF16, {latents, d}, parameters.W_dec),
        stamp(on_device(ctx, stamps)),
        with_copies(copies) {}
  LatentState state() const {
    return {p, v, with_copies ? Tensor(W_enc16) : Tensor{}, with_copies ? Tensor(W_dec16) : Tensor{}, stamp};
  }

  GuardedLatents p, v;
  Guarded W_enc16, W_dec16, stamp;
  bool with_copies;
};

struct Rates {
  float lr, beta2;
  int64_t t;
  float grad_scale = 1;

  Guarded on(Context& ctx) const {
    const double unbias = 1 / (1 - std::pow(double(beta2), double(t)));
    return Guarded(ctx, DType::kF32, {kRates}, {lr, beta2, static_cast<float>(unbias), grad_scale});
  }
};

// The step of latent i in doubles.
inline void step_in_doubles(PerLatent<double>& p, PerLatent<double>& v, const PerLatent<double>& g, int64_t i,
                            int64_t stamp, const Rates& rates, LatentUpdateOptions o) {
  const int64_t d = static_cast<int64_t>(p.W_enc.size() / p.b_enc.size());
  const double beta2 = rates.beta2, decay = std::pow(beta2, double(rates.t - stamp));
  const double unbias = 1 / (1 - std::pow(beta2, double(rates.t)));
  const auto adam = [&](double& x, double& m, double gradient, double factor) {
    gradient *= double(rates.grad_scale);
    m = decay * m + (1 - beta2) * gradient * gradient;
    x -= factor * double(rates.lr) * gradient / (std::sqrt(m * unbias) + double(o.epsilon));
  };
  double along = 0, square = 0;
  for (int64_t c = i * d; c < (i + 1) * d; ++c) along += g.W_dec[c] * p.W_dec[c];
  for (int64_t c = i * d; c < (i + 1) * d; ++c) {
    adam(p.W_enc[c], v.W_enc[c], g.W_enc[c], 1);
    adam(p.W_dec[c], v.W_dec[c], g.W_dec[c] - along * p.W_dec[c], double(o.decoder_rate));
    square += p.W_dec[c] * p.W_dec[c];
  }
  for (int64_t c = i * d; c < (i + 1) * d; ++c)
    if (square > 0) p.W_dec[c] /= std::sqrt(square);
  adam(p.b_enc[i], v.b_enc[i], g.b_enc[i], 1);
  adam(p.threshold[i], v.threshold[i], g.threshold[i], double(o.threshold_rate));
  p.threshold[i] = std::max(p.threshold[i], 0.0);
}

inline void expect_unit_rows(const std::vector<float>& w, int64_t d) {  // within what files promise
  for (size_t row = 0; row < w.size(); row += d) {
    double square = 0;
    for (int64_t c = 0; c < d; ++c) square += double(w[row + c]) * w[row + c];
    EXPECT_NEAR(std::sqrt(square), 1, 1e-6) << "row " << row / d;
  }
}

}  // namespace gsae::test
