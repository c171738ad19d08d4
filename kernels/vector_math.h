#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// exp, tanh and GELU on single floats, inline and free of branches, tables and calls, so that a loop over them under
// `#pragma omp simd` becomes vector code; libm's are calls, one element at a time. Bounds hold with and without FMA.
// They rely on IEEE order of evaluation: never compile their users with -ffast-math.

namespace gsae {

// e^x within 2 ulp wherever the result is a normal float; 0 below (x < -87.33...: subnormals are not made), infinity
// above, NaN for NaN.
//
// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2; ln 2 in two parts (Cody & Waite 1980), so that r is exact to
// f32; e^r = 1 + r + r^2 P(r), P of degree 4, the minimax fit of e^r's relative error (3e-9).
inline float vector_exp(float x) {
  constexpr float kLow = -87.336540f;         // the last above ln(FLT_MIN)
  constexpr float kHigh = 88.722832f;         // the last below ln(FLT_MAX)
  constexpr float kRound = 0x1.8p23f;         // adding it rounds to an integer, which then is in the low mantissa bits
  constexpr float kLn2High = 0x1.62e400p-1f;  // 11 trailing zeros: n * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  const float shifted = x * 0x1.715476p+0f + kRound;  // x / ln 2
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 0x1.6a242cp-10f;
  p = p * r + 0x1.1239e8p-7f;
  p = p * r + 0x1.5558f2p-5f;
  p = p * r + 0x1.555492p-3f;
  p = p * r + 0x1.fffffcp-2f;
  p = (p * r) * r + r + 1.0f;
  // times 2^n on the exponent's bits; up to n = 128, as p < 1 there
  const uint32_t bits = std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23);
  float y = std::bit_cast<float>(bits);
  y = x < kLow ? 0.0f : y;
  return x <= kHigh ? y : x + std::numeric_limits<float>::infinity();  // NaN too
}

// tanh(x) with a relative error of at most 4e-7, also where x is tiny; never beyond [-1, 1]; NaN for NaN.
//
// x P(x^2) / Q(x^2), both of degree 4, the minimax fit of the relative error (8.3e-9) on |x| <= 8.2. From 8 on 1,
// 2.3e-7 too much at worst, as there the rounding of P / Q may end above 1.
inline float vector_tanh(float x) {
  constexpr float kOne = 8.0f;
  const float a = std::fabs(x), y = x * x;
  float p = 1.484038488e-08f;
  p = p * y + 2.163715233e-05f;
  p = p * y + 3.556678928e-03f;
  p = p * y + 1.343211672e-01f;
  p = p * y + 9.999999917e-01f;
  float q = 8.370534004e-07f;
  q = q * y + 3.386428988e-04f;
  q = q * y + 2.610827042e-02f;
  q = q * y + 4.676544246e-01f;
  q = q * y + 1.0f;
  float t = a * p / q;
  t = a > kOne ? 1.0f : t;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(t) | (std::bit_cast<uint32_t>(x) & 0x80000000u));
}

// cap * tanh(x / cap), given 1 / cap. Gemma 2, arXiv:2408.00118, section 2.
inline float softcapped(float x, float cap, float inverse_cap) { return cap * vector_tanh(x * inverse_cap); }

// GELU by its tanh approximation, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Hendrycks & Gimpel, arXiv:1606.08415.
inline float gelu_tanh(float x) {
  const float inner = 0.797884561f * x * (1.0f + 0.044715f * x * x);
  return 0.5f * x * (1.0f + vector_tanh(inner));
}

}  // namespace gsae
