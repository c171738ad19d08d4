#include "io/stop_signal.h"

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "kernels/check.h"

namespace gsae {

StopSignal::StopSignal() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw Error(fmt::format("cannot make an eventfd: {}", std::strerror(errno)));
}

StopSignal::~StopSignal() { close(fd_); }

void StopSignal::raise() noexcept {
  raised_.store(true, std::memory_order_relaxed);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);  // can only fail when it is raised already
}

}  // namespace gsae
