#include "kernels/row_chunks.h"

#include <algorithm>

namespace gsae {

namespace {
constexpr int64_t kBlocks = 1024;    // two full loads of an H100, of 132 multiprocessors with four blocks or so each
constexpr int64_t kFewestRows = 16;  // with fewer the partial sums cost a tenth of what is summed
constexpr int64_t kStep = 4;         // rows that a kernel has under way at once

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
}  // namespace

RowChunks row_chunks(int64_t n, int64_t stripes, size_t chunk_bytes, size_t bytes) {
  int64_t rows = std::clamp(divide_up(n * stripes, kBlocks), kFewestRows, RowChunks::kMostRows);
  if (chunk_bytes > 0) rows = std::max(rows, divide_up(n, std::max<int64_t>(1, int64_t(bytes / chunk_bytes))));
  rows = divide_up(rows, kStep) * kStep;
  return {rows, divide_up(n, rows)};
}

}  // namespace gsae
