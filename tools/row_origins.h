#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace gsae {

// Which tokens the rows of an activation buffer were computed from, so that a checkpoint can hold those instead of the
// rows: tens of bytes for each in place of thousands. Contexts are kept as long as a slot may hold a row of theirs;
// rows that leave at random leave of a context of T tokens the last after log(T) + 0.6 times the mean stay.
class RowOrigins {
 public:
  // slots of the buffer; context: tokens of each
  RowOrigins(int64_t slots, int64_t context);

  // Contexts, one after the other, and the slot of each of their tokens' rows (-1: none). What was in these slots has
  // left.
  void add(std::span<const int32_t> tokens, std::span<const int32_t> slots);

  struct State {
    std::vector<int32_t> tokens;             // of contexts, one after the other
    std::vector<int32_t> context, position;  // of each slot asked for: which of these, and where in it
  };
  // Of slots that hold rows.
  State state(std::span<const int32_t> slots) const;
  // What state() gave for these slots, in another process. An Error unless it fits: it may come from a file.
  void restore(const State& state, std::span<const int32_t> slots);

  // Of host memory, for each row of a buffer of shuffled contexts: about.
  static int64_t bytes_per_row(int64_t context);

 private:
  struct Context {
    std::vector<int32_t> tokens;
    int64_t rows = 0;  // slots that are its
  };
  int32_t keep(std::span<const int32_t> tokens);
  void put(int32_t slot, int32_t context, int32_t position);

  int64_t context_;
  std::vector<Context> contexts_;
  std::vector<int32_t> unused_;             // of contexts_
  std::vector<int32_t> of_slot_, at_slot_;  // context and position; -1: none yet
};

}  // namespace gsae
