#include "sae/row_order.h"

#include <limits>

#include "kernels/checkf.h"

namespace gsae {

RowOrder::RowOrder(int64_t slots, uint64_t seed, bool shuffle) : slots_(slots), seed_(seed), shuffle_(shuffle) {
  CHECKF(slots > 0 && slots <= std::numeric_limits<int32_t>::max(), "a buffer of {} rows: must be in [1, 2^31)", slots);
  held_.reserve(slots);
  free_.reserve(slots);
  for (int64_t i = slots - 1; i >= 0; --i) free_.push_back(static_cast<int32_t>(i));  // slot 0 leaves first
}

void RowOrder::restore(State s) {
  std::vector<bool> seen(slots_);
  for (const std::vector<int32_t>* list : {&s.held, &s.free})
    for (const int32_t slot : *list) {
      CHECKF(slot >= 0 && slot < slots_ && !seen[slot], "slot {} of a buffer of {} rows: not there, or named twice",
             slot, slots_);
      seen[slot] = true;
    }
  CHECKF(int64_t(s.held.size() + s.free.size()) == slots_, "{} slots held and {} free of a buffer of {} rows",
         s.held.size(), s.free.size(), slots_);
  draws_ = s.draws, head_ = 0;
  held_.assign(s.held.begin(), s.held.end());  // keeps the memory that was reserved
  free_.assign(s.free.begin(), s.free.end());
}

void RowOrder::place(const std::vector<uint8_t>& keep, std::vector<int32_t>& index) {
  index.assign(keep.size(), -1);
  for (size_t r = 0; r < keep.size(); ++r) {
    if (!keep[r]) continue;
    CHECKF(!free_.empty(), "the activation buffer of {} rows is full", slots_);
    index[r] = free_.back();
    free_.pop_back();
    held_.push_back(index[r]);
  }
}

void RowOrder::take_back(const std::vector<int32_t>& slots) {
  size_t at = held_.size();  // the earlier ones lie before it
  for (auto slot = slots.rbegin(); slot != slots.rend(); ++slot) {
    while (at > static_cast<size_t>(head_) && held_[at - 1] != *slot) --at;
    CHECKF(at > static_cast<size_t>(head_), "slot {} holds none of the rows placed last", *slot);
    held_.erase(held_.begin() + static_cast<int64_t>(--at));
    free_.push_back(*slot);  // what arrives next goes to the first of them first
  }
}

void RowOrder::draw(int64_t rows, std::vector<int32_t>& index) {
  CHECKF(rows <= held(), "{} rows asked of a buffer that holds {}", rows, held());
  index.resize(rows);
  const Random random(seed_, Random::kShuffleRows, draws_++);
  for (int64_t i = 0; i < rows; ++i) {
    if (shuffle_) {
      int32_t& chosen = held_[random.below(held_.size(), i)];
      index[i] = chosen;
      chosen = held_.back();
      held_.pop_back();
    } else {
      index[i] = held_[head_++];
    }
  }
  if (head_ > slots_ / 2) {  // file order: forget what has left now and then
    held_.erase(held_.begin(), held_.begin() + head_);
    head_ = 0;
  }
  free_.insert(free_.end(), index.rbegin(), index.rend());
}

void RowOrder::sample(int64_t rows, std::vector<int32_t>& index) const {
  CHECKF(held() > 0, "a sample of an empty buffer");
  index.resize(rows);
  const Random random(seed_, Random::kSampleRows, draws_);
  for (int64_t i = 0; i < rows; ++i)
    index[i] = held_[head_ + (shuffle_ ? static_cast<int64_t>(random.below(held(), i)) : i % held())];
}

}  // namespace gsae
