#include "tools/interrupt.h"

#include <csignal>

namespace gsae {

namespace {

// A signal handler can reach nothing but this.
volatile std::sig_atomic_t noted = 0;

void note(int signal) { noted = signal; }

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;  // RESETHAND: the second one is the system's
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
