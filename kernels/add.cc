#include "kernels/add.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void add(Context& ctx, Tensor x, Tensor y) {
  CHECKF(x.dtype == DType::kF32 && y.dtype == DType::kF32 && x.rank == y.rank && x.dim == y.dim,
         "add: x {} and y {} must be f32 of one shape", x, y);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), add(ctx, x, y));
}

void cpu::add(Context&, Tensor x, Tensor y) {
  float* a = x.data<float>();
  const float* b = y.data<float>();
  parallel_for(x.size(), 1 << 15, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) a[i] += b[i];
  });
}

}  // namespace gsae
