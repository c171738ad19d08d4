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
// f32; e^r by its Taylor series to r^7 (the rest is below 6e-9 of it).
inline float vector_exp(float x) {
  constexpr float kLow = -87.336540f;         // the last above ln(FLT_MIN)
  constexpr float kHigh = 88.722832f;         // the last below ln(FLT_MAX)
  constexpr float kRound = 0x1.8p23f;         // adding it rounds to an integer, which then is in the low mantissa bits
  constexpr float kLn2High = 0x1.62e400p-1f;  // 11 trailing zeros: n * kLn2High is exact
  constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  const float shifted = x * 0x1.715476p+0f + kRound;  // x / ln 2
  const float n = shifted - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 0x1.a01a02p-13f;  // 1/7!
  p = p * r + 0x1.6c16c2p-10f;
  p = p * r + 0x1.111112p-7f;
  p = p * r + 0x1.555556p-5f;
  p = p * r + 0x1.555556p-3f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  // times 2^n on the exponent's bits; up to n = 128, as p < 1 there
  const uint32_t bits = std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(shifted) << 23);
  float y = std::bit_cast<float>(bits);
  y = x < kLow ? 0.0f : y;
  return x <= kHigh ? y : x + std::numeric_limits<float>::infinity();  // NaN too
}

// tanh(x) with a relative error of at most 4e-7, also where x is tiny; never beyond [-1, 1]; NaN for NaN.
//
// x P(x^2) / Q(x^2), both of degree 4, the minimax fit of the relative error (2.1e-8) on |x| <= 9.02, beyond which
// tanh is 1 in f32.
inline float vector_tanh(float x) {
  constexpr float kOne = 9.02f;
  float c = x > kOne ? kOne : x;
  c = c < -kOne ? -kOne : c;
  const float y = c * c;
  float p = 1.331890286e-08f;
  p = p * y + 2.058336395e-05f;
  p = p * y + 3.494027635e-03f;
  p = p * y + 1.337971218e-01f;
  p = p * y + 9.999999790e-01f;
  float q = 7.761951633e-07f;
  q = q * y + 3.283081371e-04f;
  q = q * y + 2.587104707e-02f;
  q = q * y + 4.671302742e-01f;
  q = q * y + 1.0f;
  float t = c * p / q;
  t = t > 1.0f ? 1.0f : t;
  return t < -1.0f ? -1.0f : t;
}

// cap * tanh(x / cap), given 1 / cap. Gemma 2, arXiv:2408.00118, section 2.
inline float softcapped(float x, float cap, float inverse_cap) { return cap * vector_tanh(x * inverse_cap); }

// GELU by its tanh approximation, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))). Hendrycks & Gimpel, arXiv:1606.08415.
inline float gelu_tanh(float x) {
  const float inner = 0.797884561f * x * (1.0f + 0.044715f * x * x);
  return 0.5f * x * (1.0f + vector_tanh(inner));
}

}  // namespace gsae
