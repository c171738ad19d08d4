#pragma once

#include "kernels/tensor.h"

namespace gsae {

// dispatch_float(dtype, [&]<class T>() { ... }): host code for the two floating-point dtypes.
template <class F> void dispatch_float(DType t, F&& f) {
  switch (t) {
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<BF16>();
    default: CHECK(false, std::string("expected f32 or bf16, got ") + name(t));
  }
}

}  // namespace gsae
