#include "kernels/softcap.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"
#include "kernels/vector_math.h"

namespace gsae {

void softcap(Context& ctx, Tensor x, float cap) {
  CHECKF(x.dtype == DType::kF32, "softcap: x {} must be f32", x);
  CHECKF(cap > 0, "softcap: cap {} must be positive", cap);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), softcap(ctx, x, cap));
}

void cpu::softcap(Context&, Tensor x, float cap) {
  float* p = x.data<float>();
  const float inverse = 1 / cap;
  parallel_for(x.size(), 1 << 14, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) p[i] = softcapped(p[i], cap, inverse);
  });
}

}  // namespace gsae
