#include "sae/outlier_watch.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/checkf.h"

namespace gsae {

std::optional<OutlierWatch::Broken> OutlierWatch::arrived(Context& ctx, ActivationBuffer& buffer) {
  std::optional<Broken> broken = finish();
  if (!reads_) readback_ = Readback(ctx, buffer.norms().bytes());
  reads_ = true;
  readback_.request(ctx, buffer.norms());
  waiting_ = static_cast<int64_t>(buffer.arriving().size());
  if (longest_ == 0 && !readback_.ready()) return broken;
  std::vector<int32_t> drop;
  if (!broken) broken = look(drop);
  buffer.drop(drop);
  return broken;
}

std::optional<OutlierWatch::Broken> OutlierWatch::finish() {
  std::vector<int32_t> drop;  // nothing: where rows are dropped, nothing waits
  return waiting_ > 0 ? look(drop) : std::nullopt;
}

void OutlierWatch::restore(std::vector<Seen> seen) {
  CHECKF(seen.size() == seen_.size(), "outliers of {} places, where there are {}", seen.size(), seen_.size());
  seen_ = std::move(seen);
}

// Norms of zero are those of rows that were not kept.
std::optional<OutlierWatch::Broken> OutlierWatch::look(std::vector<int32_t>& drop) {
  const int64_t n = std::exchange(waiting_, 0), places = static_cast<int64_t>(seen_.size());
  const auto norms = readback_.wait<float>();
  const auto chunk = static_cast<int64_t>(norms.size()) / places;
  for (int64_t p = 0; p < places; ++p) {
    Seen& seen = seen_[p];
    const float* of = norms.data() + p * chunk;
    sorted_.clear();
    for (int64_t r = 0; r < n; ++r) {
      if (!std::isfinite(of[r])) return Broken{p, r};
      if (of[r] > 0) sorted_.push_back(of[r]);
    }
    if (sorted_.empty()) continue;
    double mean = seen.norms / double(std::max<int64_t>(seen.rows, 1));
    if (seen.rows == 0) {
      const auto middle = sorted_.begin() + static_cast<int64_t>(sorted_.size() / 2);
      std::nth_element(sorted_.begin(), middle, sorted_.end());
      mean = *middle;
    }
    for (int64_t r = 0; r < n; ++r) {
      if (of[r] == 0) continue;
      const double length = of[r] / mean;
      const bool outlier = length > kOutlier, dropped = longest_ > 0 && length > longest_;
      if (!outlier && !dropped) {
        seen.norms += of[r], ++seen.rows;
        continue;
      }
      seen.outliers += outlier, seen.dropped += dropped;
      seen.longest = std::max(seen.longest, length);
      if (dropped) drop.push_back(static_cast<int32_t>(r));
    }
  }
  std::sort(drop.begin(), drop.end());
  drop.erase(std::unique(drop.begin(), drop.end()), drop.end());
  return std::nullopt;
}

}  // namespace gsae
