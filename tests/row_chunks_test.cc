#include "kernels/row_chunks.h"

#include <gtest/gtest.h>

#include "kernels/context.h"

namespace gsae::test {
namespace {

// Every row is in a chunk, no chunk is empty, and the partial sums fit: for every shape a training step may have, and
// for latents that leave room for one chunk or none.
TEST(RowChunks, CoverTheRowsAndFit) {
  const size_t bytes = Context::kWorkspaceBytes;
  for (const int64_t n : {1, 4, 15, 16, 17, 63, 512, 4095, 4096, 1 << 20})
    for (const int64_t columns : {1, 192, 2304, 16384, 16385, 1 << 20, 1 << 22, 1 << 24})
      for (const int64_t stripe : {128, 512, 1024}) {
        const size_t chunk_bytes = 8 * static_cast<size_t>(columns);
        const RowChunks c = row_chunks(n, (columns + stripe - 1) / stripe, chunk_bytes, bytes);
        SCOPED_TRACE(testing::Message() << n << " x " << columns << ": " << c.count << " of " << c.rows);
        EXPECT_GT(c.rows, 0);
        EXPECT_EQ(c.rows % 4, 0);
        EXPECT_GE(c.rows * c.count, n);
        EXPECT_LT(c.rows * (c.count - 1), n);
        EXPECT_TRUE(c.count == 1 || c.count * chunk_bytes <= bytes);
      }
}

// Without partial sums nothing makes chunks longer than what kernels keep in registers and shared memory.
TEST(RowChunks, AreShortWherePartialSumsDoNotCount) {
  for (const int64_t n : {1, 4096, 1 << 20})
    for (const int64_t stripes : {1, 16, 1024, 1 << 16}) {
      EXPECT_LE(row_chunks(n, stripes, 0, 0).rows, RowChunks::kMostRows);
      EXPECT_LE(row_chunks(n, stripes, 4, Context::kWorkspaceBytes).rows, RowChunks::kMostRows);
    }
}

// What the kernels' speed rests on, for batches of 4096: the 2B's 16k latents, 1M latents, and the demo's 4096.
TEST(RowChunks, OfTrainingShapes) {
  const size_t bytes = Context::kWorkspaceBytes;
  const auto check = [&](int64_t latents, int64_t rows, int64_t count) {
    const RowChunks c = row_chunks(4096, latents / 1024, 8 * static_cast<size_t>(latents), bytes);
    EXPECT_EQ(c.rows, rows) << latents;
    EXPECT_EQ(c.count, count) << latents;
  };
  check(4096, 16, 256);
  check(16384, 64, 64);
  check(131072, 128, 32);
  check(1 << 20, 1024, 4);
}

}  // namespace
}  // namespace gsae::test
