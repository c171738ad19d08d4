#pragma once

#include "kernels/check.h"

namespace gsae {

// Ctrl-C and SIGTERM, for loops that finish what they are at: after catch_interrupts() the first one is only noted,
// the second one ends the process at once, as if nothing had been caught.
void catch_interrupts();
void release_interrupts();  // from now on the first one ends the process
int interrupted();          // the signal's number, or 0

// A write that fails is an error to be told, not a signal that ends the process: a file beyond the size limit
// (SIGXFSZ), and with `pipes` a pipe that nobody reads any more (SIGPIPE).
void ignore_write_signals(bool pipes);

// Thrown when there is nothing left to do after an interrupt; main() exits with 128 + the signal's number.
struct Interrupted : Error {
  explicit Interrupted(const std::string& what = "interrupted: nothing was trained yet, nothing is kept")
      : Error(what) {}
};

}  // namespace gsae
