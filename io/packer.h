#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace gsae {

// Cuts a stream of tokens into contexts of T >= 2, each of which begins with BOS: where the stream
// has a BOS at the cut, with that one and the T - 1 tokens behind it; else with one put in front of
// the next T - 1.
class Packer {
 public:
  // Goes on where another was that had begun the context `current`.
  Packer(int64_t context, int32_t bos, std::vector<int32_t> current = {})
      : context_(context), bos_(bos), current_(std::move(current)) {
    current_.reserve(static_cast<size_t>(context));
  }

  // Continues the stream, and appends each context that is complete to `out`.
  void add(std::vector<int32_t>& out, const int32_t* ids, size_t n);
  void reset() { current_.clear(); }                                // drops what is too short for a context
  const std::vector<int32_t>& current() const { return current_; }  // begun, fewer than T

 private:
  int64_t context_;
  int32_t bos_;
  std::vector<int32_t> current_;
};

}  // namespace gsae
