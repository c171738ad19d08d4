#include "sae/row_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"

namespace gsae {
namespace {

// Follows what the slots hold, as a buffer would: numbered rows arrive, and the numbers that leave are recorded.
struct Tracker {
  RowOrder order;
  std::vector<int64_t> in_slot;
  std::vector<int64_t> left;     // numbers, in the order in which they left
  std::vector<int64_t> arrived;  // of each number: how many draws there had been before
  std::vector<int64_t> stay;     // of each that left: for how many draws it was held
  int64_t draws = 0;
  std::vector<int32_t> index;

  Tracker(int64_t slots, uint64_t seed, bool shuffle) : order(slots, seed, shuffle), in_slot(slots, -1) {}

  void place(const std::vector<uint8_t>& keep) {
    order.place(keep, index);
    ASSERT_EQ(index.size(), keep.size());
    for (size_t r = 0; r < keep.size(); ++r) {
      ASSERT_EQ(index[r] >= 0, keep[r] != 0) << "row " << r;
      if (!keep[r]) continue;
      ASSERT_LT(index[r], order.slots());
      ASSERT_EQ(in_slot[index[r]], -1) << "slot " << index[r] << " is taken";
      in_slot[index[r]] = static_cast<int64_t>(arrived.size());
      arrived.push_back(draws);
    }
  }
  void place(int64_t rows) { place(std::vector<uint8_t>(rows, 1)); }

  void draw(int64_t rows) {
    order.draw(rows, index);
    ASSERT_EQ(static_cast<int64_t>(index.size()), rows);
    ++draws;
    for (const int32_t slot : index) {
      ASSERT_TRUE(slot >= 0 && slot < order.slots()) << slot;
      ASSERT_NE(in_slot[slot], -1) << "slot " << slot << " is empty";
      left.push_back(in_slot[slot]);
      stay.push_back(draws - arrived[in_slot[slot]]);
      in_slot[slot] = -1;
    }
  }
};

// A long run of uneven chunks with dropped rows, filled whenever there is room, until the data ends and the buffer is
// drained.
void run(Tracker& t, int64_t rows, int64_t chunk, int64_t batch) {
  int64_t given = 0;
  while (given < rows || t.order.held() >= batch) {
    while (given < rows && t.order.free() >= chunk) {
      std::vector<uint8_t> keep(chunk, 1);
      for (int64_t r = 0; r < chunk; ++r) keep[r] = (given + r) % 5 != 0;
      ASSERT_NO_FATAL_FAILURE(t.place(keep));
      given += chunk;
    }
    ASSERT_EQ(t.order.free() + t.order.held(), t.order.slots());
    ASSERT_NO_FATAL_FAILURE(t.draw(batch));
  }
  ASSERT_NO_FATAL_FAILURE(t.draw(t.order.held()));
}

class RowOrderTest : public testing::TestWithParam<bool> {};

TEST_P(RowOrderTest, EachRowLeavesExactlyOnce) {
  Tracker t(1000, 7, GetParam());
  ASSERT_NO_FATAL_FAILURE(run(t, 52000, 130, 64));
  EXPECT_EQ(t.arrived.size(), 41600u);  // four of five were kept
  std::vector<int64_t> sorted = t.left, all(t.arrived.size());
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
  EXPECT_EQ(t.order.held(), 0);
  EXPECT_EQ(t.order.free(), 1000);
  EXPECT_EQ(t.left == all, !GetParam()) << "file order only without shuffling";
}

INSTANTIATE_TEST_SUITE_P(Orders, RowOrderTest, testing::Bool(),
                         [](const auto& p) { return p.param ? "Shuffled" : "FileOrder"; });

TEST(RowOrder, DependsOnTheSeedAlone) {
  const auto order = [](uint64_t seed) {
    Tracker t(500, seed, true);
    run(t, 5000, 50, 40);
    return t.left;
  };
  EXPECT_EQ(order(1), order(1));
  EXPECT_NE(order(1), order(2));
  EXPECT_NE(order(1), order(1 + (uint64_t{1} << 32)));  // all 64 bits of it
}

// Restored from a state, another order places and draws as the first one goes on to: slots, not only rows.
TEST(RowOrder, GoesOnFromAState) {
  for (const bool shuffle : {false, true}) {
    RowOrder first(100, 5, shuffle), second(100, 5, shuffle);
    std::vector<int32_t> a, b;
    const auto round = [](RowOrder& order, std::vector<int32_t>& index) {
      std::vector<int32_t> placed;
      order.place(std::vector<uint8_t>(order.free(), 1), placed);
      order.draw(30, index);
      index.insert(index.end(), placed.begin(), placed.end());
    };
    for (int i = 0; i < 3; ++i) round(first, a);
    round(second, b);  // what it was before does not matter
    second.restore(first.state());
    for (int i = 0; i < 8; ++i) {
      round(first, a), round(second, b);
      EXPECT_EQ(b, a) << i;
    }
  }
}

TEST(RowOrder, RefusesAStateThatIsNone) {
  RowOrder order(3, 1, true);
  for (const RowOrder::State& state :
       {RowOrder::State{0, {0, 1}, {}}, {0, {0, 1}, {1}}, {0, {0, 1}, {3}}, {0, {-1, 1}, {2}}, {0, {0, 1, 2}, {2}}})
    EXPECT_THROW(order.restore(state), Error);
  EXPECT_NO_THROW(order.restore({0, {2, 0}, {1}}));
  EXPECT_EQ(order.held(), 2);
}

// A sample looks, and changes nothing that comes after.
TEST(RowOrder, ASampleLeavesTheOrderAsItWas) {
  for (const bool shuffle : {false, true}) {
    Tracker a(300, 5, shuffle), b(300, 5, shuffle);
    std::vector<int32_t> sample, again;
    for (int i = 0; i < 20; ++i) {
      for (Tracker* t : {&a, &b}) t->place(t->order.free());
      b.order.sample(70, sample);
      b.order.sample(70, again);
      EXPECT_EQ(sample, again);
      for (const int32_t slot : sample) EXPECT_NE(b.in_slot[slot], -1);
      a.draw(60), b.draw(60);
      if (!shuffle) {
        sample.resize(60);
        EXPECT_EQ(sample, b.index) << "in file order a sample is what comes next";
      }
    }
    EXPECT_EQ(a.left, b.left);
    std::vector<int32_t> many;
    b.order.sample(1000, many);  // more than are held: some twice
    EXPECT_EQ(many.size(), 1000u);
  }
}

// Kept full, a buffer of N rows gives up each of them with probability B / N at each draw: stays are geometric with
// mean N / B, independent of the slot and of the row's place in its chunk. The mean over 10000 stays of standard
// deviation ~10 is within 4 standard errors, 0.4; the variance, (1 - p) / p^2 = 90, within a tenth (its standard error
// is 2.5 %).
TEST(RowOrder, StaysAreGeometric) {
  const int64_t slots = 1000, batch = 100;
  Tracker t(slots, 3, true);
  t.place(slots);
  for (int i = 0; i < 300; ++i) {
    t.draw(batch);
    t.place(batch);
  }
  // of rows that arrived after the first fill and early enough to have left by now, but for one in 10^9
  double sum = 0, square = 0, early = 0;
  int64_t count = 0;
  for (size_t i = 0; i < t.left.size(); ++i) {
    const int64_t row = t.left[i];
    if (row < slots || t.arrived[row] > 100) continue;
    const auto stay = static_cast<double>(t.stay[i]);
    sum += stay, square += stay * stay, early += stay == 1, ++count;
  }
  EXPECT_EQ(count, 100 * batch);
  const double mean = sum / double(count);
  EXPECT_NEAR(mean, double(slots) / batch, 0.4);
  EXPECT_NEAR(square / double(count) - mean * mean, 90, 9);
  EXPECT_NEAR(early / double(count), 0.1, 0.012);
}

// Rows that arrived together leave apart: neighbours share a batch of 100 out of 1000 by chance alone, about
// p / (2 - p) = 5.3 % of the time.
TEST(RowOrder, NeighboursAreSeparated) {
  Tracker t(1000, 4, true);
  t.place(1000);
  for (int i = 0; i < 300; ++i) {
    t.draw(100);
    t.place(100);
  }
  std::vector<int64_t> batch_of(t.arrived.size(), -1);
  for (size_t i = 0; i < t.left.size(); ++i) batch_of[t.left[i]] = static_cast<int64_t>(i) / 100;
  int64_t together = 0;
  for (int64_t row = 0; row < 10000; ++row) together += batch_of[row] == batch_of[row + 1];
  EXPECT_NEAR(double(together) / 10000, 0.0526, 0.01);
}

// Rows taken back have never been there: the others are held in their order, and what comes next gets the slots that it
// would have got.
TEST(RowOrder, TakesBackRowsPlacedLast) {
  for (const bool shuffle : {false, true}) {
    RowOrder with(20, 5, shuffle), without(20, 5, shuffle);
    std::vector<int32_t> index, of_without;
    for (RowOrder* order : {&with, &without}) order->place(std::vector<uint8_t>(8, 1), index);
    for (RowOrder* order : {&with, &without}) order->draw(3, index);
    with.place({1, 1, 0, 1}, index);
    with.take_back({index[0], index[1], index[3]});
    EXPECT_EQ(with.held(), 5);
    EXPECT_EQ(with.state().held, without.state().held);
    EXPECT_EQ(with.state().free, without.state().free);

    with.place({1, 1, 1}, index);
    with.take_back({index[1]});
    EXPECT_EQ(with.held(), 7);
    EXPECT_EQ(with.free(), 13);
    std::vector<int32_t> held = without.state().held;
    held.insert(held.end(), {index[0], index[2]});
    EXPECT_EQ(with.state().held, held);
    const int32_t gone = index[1];
    with.place({1}, index);
    EXPECT_EQ(index[0], gone);
    EXPECT_THROW(with.take_back({gone, gone}), Error);
  }
}

TEST(RowOrder, MoreThanFitsIsAnError) {
  RowOrder order(10, 0, true);
  std::vector<int32_t> index;
  EXPECT_THROW(order.place(std::vector<uint8_t>(11, 1), index), Error);
  RowOrder full(10, 0, true);
  full.place(std::vector<uint8_t>(10, 1), index);
  EXPECT_NO_THROW(full.place(std::vector<uint8_t>(5, 0), index));  // dropped rows need no slot
  EXPECT_EQ(index, std::vector<int32_t>(5, -1));
  EXPECT_THROW(full.place({1}, index), Error);
  EXPECT_THROW(full.draw(11, index), Error);
  EXPECT_THROW(RowOrder(10, 0, true).sample(1, index), Error);
  EXPECT_THROW(RowOrder(0, 0, true), Error);
  EXPECT_THROW(RowOrder(int64_t{1} << 31, 0, true), Error);
}

}  // namespace
}  // namespace gsae
