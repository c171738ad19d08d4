#pragma once

namespace gsae {

// Ctrl-C and SIGTERM, for loops that finish what they are at: after catch_interrupts() the first one is only noted,
// the second one ends the process at once, as if nothing had been caught.
void catch_interrupts();
int interrupted();  // the signal's number, or 0

}  // namespace gsae
