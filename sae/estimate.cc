#include "sae/estimate.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gsae {

void RatioSum::add(double a, double b) {
  ++count_;
  a_ += a;
  b_ += b;
  aa_ += a * a;
  ab_ += a * b;
  bb_ += b * b;
}

Estimate RatioSum::result() const {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  if (b_ == 0) return {kNaN, kNaN};
  const double ratio = a_ / b_;
  if (count_ < 2) return {ratio, kNaN};
  // Rounding can leave a little less than zero where every context gives the same ratio.
  const double residual = std::max(0.0, aa_ - 2 * ratio * ab_ + ratio * ratio * bb_);
  return {ratio, std::sqrt(residual * double(count_) / double(count_ - 1)) / std::fabs(b_)};
}

std::vector<int64_t> density_histogram(const std::vector<int64_t>& fired, int64_t tokens) {
  std::vector<int64_t> bins(kDensityBins);
  for (const int64_t count : fired) {
    if (count == 0) continue;
    const double bin = std::floor((std::log10(double(count) / double(tokens)) - kLowestDensity) / kDensityBinWidth);
    ++bins[static_cast<size_t>(std::clamp(bin, 0.0, double(kDensityBins - 1)))];
  }
  return bins;
}

std::vector<float> densities(const std::vector<int64_t>& fired, int64_t tokens) {
  std::vector<float> parts(fired.size());
  for (size_t i = 0; i < fired.size() && tokens > 0; ++i)
    parts[i] = static_cast<float>(double(fired[i]) / double(tokens));
  return parts;
}

}  // namespace gsae
