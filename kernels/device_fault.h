#pragma once

#include <cstdint>
#include <string>

namespace gsae {

// A value that a kernel has to refuse. Kernels cannot throw: the first one to meet such a value leaves it here, in
// host memory that the device writes, and the next Context::synchronize() throws it.
struct DeviceFault {
  enum Code : int32_t { kNone, kTokenOutside, kEmbeddingNotFinite, kTargetOutside };

  int32_t code = kNone;
  int64_t value = 0, bound = 0;  // kTokenOutside, kTargetOutside: the token and V; kEmbeddingNotFinite: the token
};

std::string describe(const DeviceFault& fault);

}  // namespace gsae
