#include "kernels/elementwise.h"

#include <cstring>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void fill_zero(Context& ctx, Tensor t) {
  if (t.size() > 0) GSAE_DISPATCH(ctx.device(), fill_zero(ctx, t));
}

void subtract(Context& ctx, Tensor a, Tensor b) {
  CHECKF(a.size() == b.size() && a.dtype == DType::kF32 && b.dtype == DType::kF32, "subtract: {} and {}", a, b);
  if (a.size() > 0) GSAE_DISPATCH(ctx.device(), subtract(ctx, a, b));
}

void multiply(Context& ctx, Tensor a, float scale) {
  CHECKF(a.dtype == DType::kF32, "multiply: {} must be f32", a);
  if (a.size() > 0) GSAE_DISPATCH(ctx.device(), multiply(ctx, a, scale));
}

void cpu::fill_zero(Context&, Tensor t) { std::memset(t.ptr, 0, t.bytes()); }

void cpu::subtract(Context&, Tensor a, Tensor b) {
  float* x = a.data<float>();
  const float* y = b.data<float>();
#pragma omp simd
  for (int64_t i = 0; i < a.size(); ++i) x[i] -= y[i];
}

void cpu::multiply(Context&, Tensor a, float scale) {
  float* x = a.data<float>();
  parallel_for(a.size(), 1 << 15, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) x[i] *= scale;
  });
}

}  // namespace gsae
