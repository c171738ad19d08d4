#pragma once

#include "kernels/tensor.h"

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

// dispatch_float(dtype, [&]<class T>() { ... }): host code for the two floating-point dtypes.
template <class F> void dispatch_float(DType t, F&& f) {
  switch (t) {
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BF16>();
    default: CHECK(false, std::string("expected f32 or bf16, got ") + name(t));
  }
}

}  // namespace gsae
