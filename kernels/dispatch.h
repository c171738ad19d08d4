#pragma once

#include "kernels/tensor.h"

#ifndef GSAE_CUDA
#error "for kernels/*.cc only: the rest of the code asks at run time (kernels/context.h)"
#endif

// The one place that knows which backends are in this build. A backend that forgets an op is a
// link error; a cuda tensor in a cpu-only build is an Error.
#if GSAE_CUDA
#define GSAE_DISPATCH(device, call) ((device) == Device::kCuda ? cuda::call : cpu::call)
#else
#define GSAE_DISPATCH(device, call) (::gsae::require_cpu(device), cpu::call)
#endif

namespace gsae {

inline void require_cpu(Device d) {
  CHECK(d == Device::kCpu, "this build has no CUDA backend (-DGSAE_CUDA=ON or EMULATED)");
}

}  // namespace gsae
