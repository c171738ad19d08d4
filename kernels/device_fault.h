#pragma once

#include <cstdint>
#include <string>

namespace gsae {

// Values that a kernel has to refuse. Kernels cannot throw: they leave the first of each kind here, in device memory
// (kernels/device_fault.cuh), and the next Context::synchronize() throws it, with the words that the CPU uses.
struct DeviceFault {
  enum Kind : int32_t { kTokenOutside, kEmbeddingNotFinite, kTargetOutside, kKinds };

  // The lowest position at which it happened, and the token that was there, in one word, so that an atomic minimum
  // finds the same one whatever the order of the threads. All ones: never.
  unsigned long long first[kKinds];
  int64_t vocabulary[kKinds];  // tokens, where it happened
};

std::string describe(DeviceFault::Kind kind, int64_t position, int32_t token, int64_t vocabulary);
std::string describe(const DeviceFault& fault);  // of the first kind that happened; "" if none did

}  // namespace gsae
