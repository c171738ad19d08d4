#include "kernels/philox.h"

#include <gtest/gtest.h>

namespace gsae {
namespace {

// The known-answer vectors published with Random123 (tests/kat_vectors, philox4x32 10 rounds).
TEST(Philox, PublishedVectors) {
  using C = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (C{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (C{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (C{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, StreamsDiffer) {
  const Random a(1, Random::kShuffleRows, 0), b(2, Random::kShuffleRows, 0), c(1, Random::kInitDecoder, 0),
      d(1, Random::kShuffleRows, 1);
  EXPECT_NE(a.bits(0), b.bits(0));
  EXPECT_NE(a.bits(0), c.bits(0));
  EXPECT_NE(a.bits(0), d.bits(0));
  EXPECT_NE(a.bits(0), a.bits(uint64_t{1} << 32));
  EXPECT_EQ(a.bits(7), Random(1, Random::kShuffleRows, 0).bits(7));
}

TEST(Philox, BelowIsInRangeAndUniform) {
  const Random r(3, Random::kResample);
  std::array<int, 7> count{};
  for (int i = 0; i < 70000; ++i) ++count.at(r.below(7, i));
  for (const int c : count) EXPECT_NEAR(c, 10000, 400);  // four standard deviations: sqrt(70000 * 6/49) = 93
}

}  // namespace
}  // namespace gsae
