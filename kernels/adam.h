#pragma once

#include <limits>

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// What varies from step to step, in device memory, so that a recorded step can be replayed:
// rates (4) f32.
enum Rate : int {
  kLearningRate,
  kBeta2,
  kUnbias,     // 1 / (1 - beta2^t), t = 1 at the first step
  kGradScale,  // multiplies every gradient first (1: none)
  kRates
};

struct AdamOptions {
  float epsilon = 1e-8f;
  float rate_scale = 1;                                    // multiplies the learning rate
  float lowest = -std::numeric_limits<float>::infinity();  // parameters are clamped to this from below; NaN stays
};

// Adam with beta1 = 0 (RMSProp with bias correction):
//
//   v  = beta2 v + (1 - beta2) g^2
//   p -= lr g / (sqrt(v / (1 - beta2^t)) + epsilon);  p = max(p, lowest)
//
//   p, v, g  any shape, f32
//   copy     the same size, bf16: p rounded, for the products; or empty
//   rates    (4) f32
//
// Memory-bound: moves 5 * p.bytes() + copy.bytes(). Kingma & Ba 2014, arXiv:1412.6980.
void adam(Context& ctx, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions options);

namespace cpu {
void adam(Context& ctx, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions options);
}
namespace cuda {
void adam(Context& ctx, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions options);
}

}  // namespace gsae
