#pragma once

#include <cstdint>
#include <vector>

namespace gsae {

// A value with its standard error; NaN where it is not defined (no data; an error of one context).
struct Estimate {
  double value = 0, error = 0;
};

// R = sum_c a_c / sum_c b_c over contexts c, and its standard error with the context as the unit of
// sampling (tokens of a context are not independent), by the delta method:
//
//   se^2 = C / (C - 1) * sum_c (a_c - R b_c)^2 / (sum_c b_c)^2
//
// Every metric of an evaluation is such a ratio: a mean over tokens has b_c = tokens of c; a paired
// difference of losses has a_c = the difference; the FVU has a_c = error, b_c = variance. Cochran,
// Sampling Techniques, 3rd ed., 6.13 (clusters of unequal size: 9A.4). Sums in f64.
class RatioSum {
 public:
  void add(double a, double b);
  Estimate result() const;

 private:
  int64_t count_ = 0;
  double a_ = 0, b_ = 0, aa_ = 0, ab_ = 0, bb_ = 0;
};

// How many latents fire how often: counts by log10 of the fraction of tokens on which a latent
// fires, in bins of half a decade from 10^-7 (which takes what is rarer) to 1. Dead latents, which
// never fired, are not counted.
constexpr int kDensityBins = 14;
constexpr double kLowestDensity = -7, kDensityBinWidth = 0.5;  // log10
std::vector<int64_t> density_histogram(const std::vector<int64_t>& fired, int64_t tokens);

// The part of the tokens on which each latent fired.
std::vector<float> densities(const std::vector<int64_t>& fired, int64_t tokens);

}  // namespace gsae
