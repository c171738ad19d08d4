#pragma once

#include "kernels/check.h"

namespace gsae {

// Ctrl-C and SIGTERM, for loops that finish what they are at: after catch_interrupts() the first one is only noted,
// the second one ends the process at once, as if nothing had been caught.
void catch_interrupts();
int interrupted();  // the signal's number, or 0

// Thrown when there is nothing left to do after an interrupt; main() exits with 128 + the signal's number.
struct Interrupted : Error {
  explicit Interrupted(const std::string& what = "interrupted: nothing was trained yet, nothing is kept")
      : Error(what) {}
};

}  // namespace gsae
