#include "kernels/add_bias.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void add_bias(Context& ctx, Tensor x, Tensor bias) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "add_bias: x {} must be f32 (n, d)", x);
  CHECKF(bias.is({x.dim[1]}) && bias.dtype == DType::kF32, "add_bias: bias {} must be f32[{}]", bias, x.dim[1]);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), add_bias(ctx, x, bias));
}

void cpu::add_bias(Context&, Tensor x, Tensor bias) {
  const int64_t d = x.dim[1];
  const float* b = bias.data<float>();
  float* xs = x.data<float>();
  parallel_for(x.dim[0], 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = xs + r * d;
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) row[i] += b[i];
    }
  });
}

}  // namespace gsae
