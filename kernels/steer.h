#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// What moves rows along some latents of SAEs, each by an amount or to an activation.
struct SteeredLatents {
  Tensor decoder;    // (k, d) f32, the directions
  Tensor encoder;    // (k, d) f32, those columns of W_enc, each as a row; not read where gain is 0
  Tensor bias;       // (k)    f32, of the encoder
  Tensor threshold;  // (k)    f32
  Tensor amount;     // (k)    f32
  Tensor gain;       // (k)    f32
};

// x[r] += sum_i (amount[i] - gain[i] * f[r,i]) decoder[i],  f[r,i] = z where z > threshold[i], else 0,
//                                                          z = x[r] . encoder[i] + bias[i]
//
//   x  (n, d)  f32. Every f is of x as it came: the order of the latents does not matter, but for the rounding of sums
//
// (amount, gain) = (strength, 0) adds a direction, (value, 1) sets an activation. Sums in f32; on cuda by fixed trees,
// which depend on d alone. k up to kMostSteered. Moves x in and out once, and the latents' rows once for each row of x.
void steer(Context& ctx, Tensor x, const SteeredLatents& s);

constexpr int64_t kMostSteered = 4096;

namespace cpu {
void steer(Context& ctx, Tensor x, const SteeredLatents& s);
}
namespace cuda {
void steer(Context& ctx, Tensor x, const SteeredLatents& s);
}

}  // namespace gsae
