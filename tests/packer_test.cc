#include "io/packer.h"

#include <gtest/gtest.h>

namespace gsae {
namespace {

constexpr int32_t kBos = 2;
using Ids = std::vector<int32_t>;

Ids packed(int64_t context, const std::vector<Ids>& parts) {
  Packer packer(context, kBos);
  Ids out;
  for (const Ids& part : parts) packer.add(out, part.data(), part.size());
  return out;
}

// By hand, from the rule: BOS in front of T - 1 tokens, or T tokens that begin with it.
TEST(Packer, BosAtTheCutOrPutThere) {
  EXPECT_EQ(packed(4, {{2, 11, 12, 13, 14, 15, 16}}), (Ids{2, 11, 12, 13, 2, 14, 15, 16}));
  EXPECT_EQ(packed(4, {{2, 11, 12, 13, 2, 21, 22, 23, 24}}), (Ids{2, 11, 12, 13, 2, 21, 22, 23}));
  EXPECT_EQ(packed(4, {{2, 11, 12, 2, 21, 22, 23, 24, 25}}), (Ids{2, 11, 12, 2, 2, 21, 22, 23}));
  EXPECT_EQ(packed(4, {{11, 12, 13, 14, 15, 16}}), (Ids{2, 11, 12, 13, 2, 14, 15, 16}));
  EXPECT_EQ(packed(2, {{2, 2, 2, 2, 11}}), (Ids{2, 2, 2, 2, 2, 11}));
}

TEST(Packer, PartsMakeNoDifference) {
  const Ids whole = {2, 11, 12, 2, 21, 22, 23, 24, 2, 25, 26, 27, 2, 2, 28, 29, 30};
  const Ids want = packed(4, {whole});
  for (size_t cut = 0; cut <= whole.size(); ++cut)
    EXPECT_EQ(packed(4, {Ids(whole.begin(), whole.begin() + cut), {}, Ids(whole.begin() + cut, whole.end())}), want)
        << cut;
}

TEST(Packer, DropsTheRest) {
  Packer packer(4, kBos);
  Ids out;
  const Ids first = {2, 11, 12}, second = {2, 21, 22, 23};
  packer.add(out, first.data(), first.size());
  EXPECT_TRUE(out.empty());
  packer.reset();
  packer.add(out, second.data(), second.size());
  EXPECT_EQ(out, second);
}

}  // namespace
}  // namespace gsae
