#pragma once

// The functions of kernels/vector_math.h, for device code.

#include <cuda_runtime.h>

namespace gsae {

// cap * tanh(x / cap), given 1 / cap.
__device__ inline float softcapped(float x, float cap, float inverse_cap) { return cap * tanhf(x * inverse_cap); }

}  // namespace gsae
