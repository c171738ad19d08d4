#pragma once

#include "kernels/bf16.h"
#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// out = x in the dtype of out: f32 and bf16, either way or the same; rounds to nearest even once.
//
//   out  any shape, f32 or bf16; aliases x only if the dtypes agree
//   x    the same size, f32 or bf16
//
// Memory-bound: moves x.bytes() + out.bytes().
void convert(Context& ctx, Tensor out, Tensor x);

namespace cpu {
void convert(Context& ctx, Tensor out, Tensor x);
}
namespace cuda {
void convert(Context& ctx, Tensor out, Tensor x);
}

// The loop itself, for ops that convert a row on their way.
template <class Out, class In> void convert(Out* out, const In* x, int64_t n) {
#ifdef _OPENMP  // not where a .cu file includes this
#pragma omp simd
#endif
  for (int64_t i = 0; i < n; ++i) store(out + i, to_float(x[i]));
}

}  // namespace gsae
