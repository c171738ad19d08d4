#include "kernels/vector_math.h"

#include <gtest/gtest.h>

#include <vector>

namespace gsae {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// Every `stride`-th float of both signs, infinities included, NaNs not.
std::vector<float> sweep(uint32_t stride) {
  std::vector<float> x;
  for (uint32_t bits = 0; bits < 0x7f800000u; bits += stride) {
    x.push_back(std::bit_cast<float>(bits));
    x.push_back(-x.back());
  }
  for (const float edge : {kInf, -kInf, 88.72283f, 88.72284f, -87.33654f, -87.33655f, -103.0f, -104.0f, 9.02f, 9.0f}) {
    x.push_back(edge);
    x.push_back(std::nextafterf(edge, kInf));
    x.push_back(std::nextafterf(edge, -kInf));
  }
  return x;
}

// Under `omp simd`, as the ops use them.
template <class F> std::vector<float> map(const std::vector<float>& x, F f) {
  std::vector<float> y(x.size());
#pragma omp simd
  for (size_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);
  return y;
}

double ulp(double x) {
  int exponent;
  std::frexp(x, &exponent);
  return std::ldexp(1.0, exponent - 24);
}

TEST(VectorMath, ExpWithinTwoUlp) {
  const auto x = sweep(4099);
  const auto y = map(x, [](float v) { return vector_exp(v); });
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    if (want > std::numeric_limits<float>::max()) {
      ASSERT_EQ(y[i], kInf) << x[i];
    } else if (want < std::numeric_limits<float>::min()) {
      ASSERT_EQ(y[i], 0) << x[i];
    } else {
      ASSERT_LE(std::fabs(y[i] - want), 2 * ulp(want)) << x[i];
    }
  }
}

TEST(VectorMath, TanhWithinItsRelativeError) {
  const auto x = sweep(4099);
  const auto y = map(x, [](float v) { return vector_tanh(v); });
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::tanh(static_cast<double>(x[i]));
    ASSERT_LE(std::fabs(y[i] - want), 4e-7 * std::fabs(want) + std::numeric_limits<float>::denorm_min()) << x[i];
    ASSERT_LE(std::fabs(y[i]), 1) << x[i];
  }
}

// The formula in doubles. Where tanh is near -1 the sum cancels: then the error is of the term, x/2.
TEST(VectorMath, GeluTanhMatchesItsFormula) {
  std::vector<float> x;
  for (float v = -12; v < 12; v += 1.0f / 1024) x.push_back(v);
  const auto y = map(x, [](float v) { return gelu_tanh(v); });
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    const double want = v / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    ASSERT_NEAR(y[i], want, 5e-7 * std::fabs(v)) << x[i];
  }
}

TEST(VectorMath, SoftcappedStaysWithinTheCap) {
  for (const float x : {1e-30f, 0.5f, 29.0f, 1e3f, 1e30f, kInf}) {
    EXPECT_NEAR(softcapped(x, 30, 1 / 30.0f), 30 * std::tanh(x / 30.0), 6e-7 * std::min(x, 30.0f));
    EXPECT_EQ(softcapped(-x, 30, 1 / 30.0f), -softcapped(x, 30, 1 / 30.0f));
  }
}

TEST(VectorMath, NanStaysNan) {
  for (const float x : {kNan, -kNan}) {
    EXPECT_TRUE(std::isnan(vector_exp(x)));
    EXPECT_TRUE(std::isnan(vector_tanh(x)));
    EXPECT_TRUE(std::isnan(gelu_tanh(x)));
  }
  EXPECT_EQ(gelu_tanh(kInf), kInf);
}

}  // namespace
}  // namespace gsae
