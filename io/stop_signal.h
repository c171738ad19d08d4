#pragma once

#include <atomic>

namespace gsae {

// Asks background threads to stop, those that wait for standard input included: fd() becomes
// readable, for poll() beside what they wait for.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  void raise() noexcept;
  bool raised() const noexcept { return raised_.load(std::memory_order_relaxed); }
  int fd() const { return fd_; }

 private:
  std::atomic<bool> raised_ = false;
  int fd_ = -1;
};

}  // namespace gsae
