#pragma once

// Attention by its definition, in doubles, and how far the backends may be from it.

#include "kernels/attention.h"
#include "tests/harness.h"

namespace gsae::test {

struct AttentionCase {
  const char* name;
  int64_t B, heads, kv_heads, T, size;
  AttentionOptions options;
  float reach = 1;  // q and k in [-reach, reach)
  friend void PrintTo(const AttentionCase& c, std::ostream* os) { *os << c.name; }
};

struct AttentionOperands {
  explicit AttentionOperands(const AttentionCase& c, DType t = DType::kF32, uint32_t seed = 1)
      : q(uniform(c.B * c.heads * c.T * c.size, seed, t, -c.reach, c.reach)),
        k(uniform(c.B * c.kv_heads * c.T * c.size, seed + 1, t, -c.reach, c.reach)),
        v(uniform(c.B * c.kv_heads * c.T * c.size, seed + 2, t, -1, 1)) {}
  std::vector<float> q, k, v;
};

// What arithmetic stands between the definition and a result: f32 throughout, or tensor cores.
enum class Arithmetic { kF32, kTensorCores };

// out, (B * T, Hq * dh), and what each element may be off by before it is rounded to its dtype.
//
// If score j is off by at most e_j, its exp is off by a factor 1 + d_j, |d_j| <= D_j = exp(e_j) - 1, and with the
// weights w_j of the definition the result is sum_j w_j (1 + d_j) (1 + r_j) v_j / (1 + sum_j w_j d_j), where r_j is
// what weights and sums lose to rounding, at most R. So it is off by at most
//
//   sum_j w_j |v_j| ((1 + D_j) (1 + R) / (1 - sum_j w_j D_j) - 1)
//
// f32: dot products of dh terms are off by sqrt(dh) roundings of the whole, which is generous for random signs; tanh by
// 4e-7; R is 8 ulp.
//
// Tensor cores, dot products of bf16: products are exact, and each of dh additions is off by two ulp of the sum of the
// magnitudes at most. tanh is off by 2^-11. Scores turn into powers of two by a multiplication and a subtraction of the
// highest. exp2 is off by 2^-22, and as the highest may rise with every tile, of 32 keys or more, so often. R: bf16
// weights are off by 2^-8, the sums by two ulp for each key.
inline void attention_reference(const AttentionCase& c, const AttentionOperands& x, Arithmetic arithmetic,
                                std::vector<double>& out, std::vector<double>& bound) {
  out.assign(c.B * c.T * c.heads * c.size, 0);
  bound.assign(out.size(), 0);
  constexpr double kUlp = 0x1p-23;
  const bool f32 = arithmetic == Arithmetic::kF32;
  const double cap = c.options.softcap;
  for (int64_t b = 0; b < c.B; ++b) {
    for (int64_t h = 0; h < c.heads; ++h) {
      const float* q = &x.q[(b * c.heads + h) * c.T * c.size];
      const int64_t kv = (b * c.kv_heads + h / (c.heads / c.kv_heads)) * c.T * c.size;
      for (int64_t i = 0; i < c.T; ++i) {
        const int64_t lo = c.options.window ? std::max<int64_t>(0, i - c.options.window + 1) : 0;
        const double keys = double(i + 1 - lo);
        std::vector<double> p(c.T), error(c.T);
        double max = -HUGE_VAL, sum = 0, mean_error = 0;
        for (int64_t j = lo; j <= i; ++j) {
          double s = 0, terms = 0;
          for (int64_t e = 0; e < c.size; ++e) {
            const double t = double(q[i * c.size + e]) * x.k[kv + j * c.size + e];
            s += t, terms += std::fabs(t);
          }
          s *= c.options.scale, terms *= c.options.scale;
          error[j] = f32 ? std::sqrt(double(c.size)) * kUlp * terms : 2 * double(c.size) * kUlp * terms;
          if (cap > 0) {
            const double t = std::tanh(s / cap);
            error[j] = error[j] * (1 - t * t) + ((f32 ? 4e-7 : 0x1p-11) + kUlp) * cap * std::fabs(t);
            s = cap * t;
          }
          error[j] += kUlp * std::fabs(s);
          p[j] = s;
          max = std::max(max, s);
        }
        for (int64_t j = lo; j <= i; ++j) {
          if (!f32) error[j] += kUlp * (std::fabs(p[j]) + std::fabs(max)) + 2 * kUlp * (2 + keys / 32);
          sum += p[j] = std::exp(p[j] - max);
        }
        for (int64_t j = lo; j <= i; ++j) {
          p[j] /= sum, error[j] = std::expm1(error[j]);
          mean_error += p[j] * error[j];
        }
        const double rounding = f32 ? 8 * kUlp : 0x1p-8 + 2 * kUlp * (4 + keys);
        for (int64_t e = 0; e < c.size; ++e) {
          const int64_t at = (b * c.T + i) * c.heads * c.size + h * c.size + e;
          for (int64_t j = lo; j <= i; ++j) {
            const double y = p[j] * x.v[kv + j * c.size + e];
            out[at] += y;
            bound[at] += std::fabs(y) * ((1 + error[j]) * (1 + rounding) / (1 - mean_error) - 1);
          }
        }
      }
    }
  }
}

}  // namespace gsae::test
