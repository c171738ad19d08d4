#include "tools/row_origins.h"

#include <random>

#include "sae/row_order.h"
#include "tests/harness.h"

namespace gsae::test {
namespace {

// Against a list of what is in each slot, over many fills and draws of a shuffled buffer: every row held is known by
// its context's tokens and its place in them, and nothing else is kept. Token t of context c is 1000 c + t: no two
// alike.
TEST(RowOrigins, KnowsEveryRowThatIsHeld) {
  constexpr int64_t kSlots = 200, kContext = 8, kContexts = 4;
  RowOrder order(kSlots, 3, true);
  RowOrigins origins(kSlots, kContext);
  std::vector<int32_t> in_slot(kSlots, -1), slots, drawn;
  std::mt19937 rng(1);
  size_t most = 0;
  for (int32_t step = 0; step < 300; ++step) {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> keep;
    for (int32_t i = 0; i < kContexts * kContext; ++i) {
      tokens.push_back(1000 * (step * kContexts + i / kContext) + i % kContext);
      keep.push_back(i % kContext > 0 && i / kContext != step % 7);  // BOS; a context of nothing to keep
    }
    order.place(keep, slots);
    origins.add(tokens, slots);
    for (size_t i = 0; i < slots.size(); ++i)
      if (slots[i] >= 0) in_slot[slots[i]] = tokens[i];
    while (order.free() < kContexts * kContext) order.draw(1 + int64_t(rng() % 20), drawn);

    const auto held = order.state().held;
    const RowOrigins::State s = origins.state(held);
    ASSERT_EQ(s.context.size(), held.size());
    std::vector<bool> used(s.tokens.size() / kContext);
    for (size_t i = 0; i < held.size(); ++i) {
      ASSERT_EQ(s.tokens.at(s.context[i] * kContext + s.position[i]), in_slot[held[i]]);
      used.at(s.context[i]) = true;
    }
    ASSERT_EQ(std::count(used.begin(), used.end(), false), 0);
    most = std::max(most, s.tokens.size() / kContext);

    RowOrigins again(kSlots, kContext);
    again.restore(s, held);
    const RowOrigins::State t = again.state(held);
    ASSERT_EQ(t.tokens, s.tokens);
    ASSERT_EQ(t.context, s.context);
    ASSERT_EQ(t.position, s.position);
  }
  EXPECT_LT(most, 120);  // of the 1200 that came: what has left is forgotten
}

TEST(RowOrigins, StateThatDoesNotFitIsAnError) {
  const std::vector<int32_t> slots{0, 1};
  const auto restore = [&](const RowOrigins::State& s) { RowOrigins(4, 3).restore(s, slots); };
  EXPECT_NO_THROW(restore({{1, 2, 3}, {0, 0}, {1, 2}}));
  EXPECT_THROW(restore({{1, 2}, {0, 0}, {1, 2}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0}, {1, 2}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0, 0}, {1}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0, 1}, {1, 2}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0, -1}, {1, 2}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0, 0}, {1, 3}}), Error);
  EXPECT_THROW(restore({{1, 2, 3}, {0, 0}, {-1, 2}}), Error);
  EXPECT_THROW(RowOrigins(4, 3).state(slots), Error);  // they have held nothing
  EXPECT_THROW(RowOrigins(4, 3).add(std::vector<int32_t>{1, 2, 3}, slots), Error);
}

}  // namespace
}  // namespace gsae::test
