#pragma once

#include <cuda_runtime.h>

#include "kernels/device_fault.h"

namespace gsae {

// From any number of threads. position: below 2^32.
__device__ inline void report(DeviceFault* fault, DeviceFault::Kind kind, int64_t position, int32_t token,
                              int64_t vocabulary) {
  fault->vocabulary[kind] = vocabulary;
  atomicMin(&fault->first[kind],
            static_cast<unsigned long long>(position) << 32 | static_cast<unsigned long long>(uint32_t(token)));
}

}  // namespace gsae
