#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/philox.h"

namespace gsae {

// Which slot of an activation buffer each arriving row goes to, and which rows a step takes: index
// arithmetic only, on the host, so that the device never waits for it and several sites can share it.
//
// Shuffled, a step draws its rows uniformly, without replacement, from all that the buffer holds, and the
// slots they leave are filled by what arrives next: each row is used exactly once, stays for about
// slots / batch steps, and the order depends on the seed and the sequence of calls alone. In file order,
// rows leave as they came.
class RowOrder {
 public:
  RowOrder(int64_t slots, uint64_t seed, bool shuffle);

  // What another process needs to place and draw as this one would.
  struct State {
    uint64_t draws = 0;
    std::vector<int32_t> held, free;  // slots
  };
  State state() const { return {draws_, {held_.begin() + head_, held_.end()}, free_}; }
  // An Error unless held and free are each slot once: it may come from a file.
  void restore(State state);

  int64_t free() const { return static_cast<int64_t>(free_.size()); }
  int64_t held() const { return static_cast<int64_t>(held_.size()) - head_; }
  int64_t slots() const { return slots_; }

  // One slot for every row that is kept, -1 for the others. keep: one flag per row.
  // At most free() rows may be kept.
  void place(const std::vector<uint8_t>& keep, std::vector<int32_t>& index);
  // Some of the rows placed last, by their slots in the order of their arrival: as if they had never come.
  void take_back(const std::vector<int32_t>& slots);
  // The slots of `rows` rows, which are free again from now on. At most held().
  void draw(int64_t rows, std::vector<int32_t>& index);
  // The slots held, in the order of their rows' arrival as long as none has left.
  std::span<const int32_t> held_slots() const { return std::span(held_).subspan(head_); }
  // The slots of `rows` rows that stay where they are: drawn with replacement, or the next ones in file order.
  void sample(int64_t rows, std::vector<int32_t>& index) const;

 private:
  int64_t slots_;
  uint64_t seed_;
  bool shuffle_;
  uint64_t draws_ = 0;  // counts the draws: the step of the random stream
  int64_t head_ = 0;    // in file order: held_[0, head_) have left
  std::vector<int32_t> held_, free_;
};

}  // namespace gsae
