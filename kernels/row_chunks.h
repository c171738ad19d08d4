#pragma once

#include <cstddef>
#include <cstdint>

namespace gsae {

// How cuda's sums over rows are cut: a block adds up one chunk of rows for one stripe of columns, and where there are
// several chunks a second kernel adds their sums (kernels/partial_sums.cuh). It depends on the shape alone, and the
// bits of the result with it.
struct RowChunks {
  static constexpr int64_t kMostRows = 128;  // of a chunk, unless memory for the partial sums asks for more

  int64_t rows = 0;   // of each but the last, which may be shorter; a multiple of 4
  int64_t count = 0;  // at least 1
};

// For n > 0 rows by `stripes` stripes. As many chunks as give every multiprocessor several blocks, but no more than
// `bytes` of memory hold, a chunk's partial sums taking chunk_bytes (0: none). One chunk always fits: it can be added
// to the result at once.
RowChunks row_chunks(int64_t n, int64_t stripes, size_t chunk_bytes, size_t bytes);

}  // namespace gsae
