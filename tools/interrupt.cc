#include "tools/interrupt.h"

#include <array>
#include <csignal>
#include <cstddef>

namespace gsae {

namespace {

// A signal handler can reach nothing but this.
volatile std::sig_atomic_t noted = 0;

void note(int signal) { noted = signal; }

// oneDNN's compiled f32 products run with the stack pointer in a small block of the heap: a signal's frame, kilobytes
// of vector registers, would be pushed there, over whatever lies below it. So the handler has a stack of its own; of
// the thread that calls this, the main one, which the kernel gives a process's signals to.
void use_own_stack() {
  static std::array<std::byte, 1 << 16> stack;
  stack_t own{};
  own.ss_sp = stack.data();
  own.ss_size = stack.size();
  sigaltstack(&own, nullptr);
}

}  // namespace

void catch_interrupts() {
  use_own_stack();
  struct sigaction action {};
  action.sa_handler = note;
  // RESETHAND: the second one is the system's
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART | SA_ONSTACK;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void release_interrupts() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

int interrupted() { return noted; }

void ignore_write_signals(bool pipes) {
  std::signal(SIGXFSZ, SIG_IGN);
  if (pipes) std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace gsae
