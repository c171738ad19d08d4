#pragma once

#include <array>

#include "kernels/context.h"
#include "kernels/philox.h"
#include "kernels/tensor.h"

namespace gsae {

// out[i] = scale * (the i-th number of a standard normal distribution), by Box & Muller from the words of `random` at
// index i / 2: the same numbers in any order and, up to the rounding of log, cosine and sine, on any device.
//
//   out[2k]     = scale * sqrt(-2 log u) cos(2 pi v)        u, v: uniforms_for_normal(random.words(k))
//   out[2k + 1] = scale * sqrt(-2 log u) sin(2 pi v)
//
//   out  any shape, f32 or bf16, rounded once
//
// No number is beyond 6.77 * scale. Memory-bound on a GPU, where a Philox block for every two elements is hidden: moves
// out.bytes(). Box & Muller 1958, doi:10.1214/aoms/1177706645.
void random_normal(Context& ctx, Tensor out, Random random, float scale);

// u in (0, 1], with all the bits of its word where it is small, so that the tail is as long as 32 bits make it; v in
// [0, 1]. The same f32 numbers everywhere, with and without fused multiply-adds: the product is exact.
constexpr std::array<float, 2> uniforms_for_normal(const std::array<uint32_t, 4>& words) {
  return {static_cast<float>(words[0]) * 0x1p-32f + 0x1p-33f, static_cast<float>(words[1]) * 0x1p-32f};
}

namespace cpu {
void random_normal(Context& ctx, Tensor out, Random random, float scale);
}
namespace cuda {
void random_normal(Context& ctx, Tensor out, Random random, float scale);
}

}  // namespace gsae
