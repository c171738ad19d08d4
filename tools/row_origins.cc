#include "tools/row_origins.h"

#include <algorithm>
#include <cmath>

#include "kernels/checkf.h"

namespace gsae {

RowOrigins::RowOrigins(int64_t slots, int64_t context) : context_(context), of_slot_(slots, -1), at_slot_(slots, -1) {}

int64_t RowOrigins::bytes_per_row(int64_t context) {
  return 8 + static_cast<int64_t>(4 * (std::log(double(context)) + 2));
}

int32_t RowOrigins::keep(std::span<const int32_t> tokens) {
  if (unused_.empty()) {
    unused_.push_back(static_cast<int32_t>(contexts_.size()));
    contexts_.emplace_back();
  }
  const int32_t id = unused_.back();
  unused_.pop_back();
  contexts_[id].tokens.assign(tokens.begin(), tokens.end());
  return id;
}

void RowOrigins::put(int32_t slot, int32_t context, int32_t position) {
  ++contexts_[context].rows;
  if (const int32_t before = of_slot_[slot]; before >= 0 && --contexts_[before].rows == 0) {
    contexts_[before].tokens = {};  // its memory too: contexts come in one size, but most are gone soon
    unused_.push_back(before);
  }
  of_slot_[slot] = context, at_slot_[slot] = position;
}

void RowOrigins::add(std::span<const int32_t> tokens, std::span<const int32_t> slots) {
  CHECKF(tokens.size() == slots.size() && int64_t(tokens.size()) % context_ == 0,
         "{} tokens for {} slots, contexts of {}", tokens.size(), slots.size(), context_);
  for (size_t begin = 0; begin < tokens.size(); begin += context_) {
    const auto of = slots.subspan(begin, context_);
    if (std::all_of(of.begin(), of.end(), [](int32_t slot) { return slot < 0; })) continue;
    const int32_t context = keep(tokens.subspan(begin, context_));
    for (int64_t t = 0; t < context_; ++t)
      if (of[t] >= 0) put(of[t], context, static_cast<int32_t>(t));
  }
}

RowOrigins::State RowOrigins::state(std::span<const int32_t> slots) const {
  State s;
  std::vector<int32_t> saved(contexts_.size(), -1);
  for (const int32_t slot : slots) {
    const int32_t context = of_slot_.at(slot);
    CHECKF(context >= 0, "slot {} has held no row", slot);
    if (saved[context] < 0) {
      saved[context] = static_cast<int32_t>(int64_t(s.tokens.size()) / context_);
      s.tokens.insert(s.tokens.end(), contexts_[context].tokens.begin(), contexts_[context].tokens.end());
    }
    s.context.push_back(saved[context]);
    s.position.push_back(at_slot_[slot]);
  }
  return s;
}

void RowOrigins::restore(const State& s, std::span<const int32_t> slots) {
  const int64_t contexts = int64_t(s.tokens.size()) / context_;
  CHECKF(contexts * context_ == int64_t(s.tokens.size()) && s.context.size() == slots.size() &&
             s.position.size() == slots.size(),
         "{} tokens, in contexts of {}, for {} rows of {} slots", s.tokens.size(), context_, s.context.size(),
         slots.size());
  std::vector<int32_t> ids;
  for (int64_t c = 0; c < contexts; ++c) ids.push_back(keep(std::span(s.tokens).subspan(c * context_, context_)));
  for (size_t i = 0; i < slots.size(); ++i) {
    CHECKF(s.context[i] >= 0 && s.context[i] < contexts && s.position[i] >= 0 && s.position[i] < context_,
           "row {} is token {} of context {}: there are {} of {}", i, s.position[i], s.context[i], contexts, context_);
    put(slots[i], ids[s.context[i]], s.position[i]);
  }
}

}  // namespace gsae
