#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace gsae {

// parallel_for(n, grain, [&](int64_t begin, int64_t end) { ... }): [0, n) in consecutive ranges of
// `grain` (the last may be shorter) over the OpenMP threads. The ranges depend on n and grain
// alone, never on the number of threads, so that a reduction kept per range gives the same bits
// anywhere.
template <class F> void parallel_for(int64_t n, int64_t grain, F&& f) {
  const int64_t ranges = (n + grain - 1) / grain;
  if (ranges == 1) return f(int64_t{0}, n);
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < ranges; ++r) f(r * grain, std::min(n, (r + 1) * grain));
}

}  // namespace gsae
