#include "kernels/geglu.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/vector_math.h"

namespace gsae {

void geglu(Context& ctx, Tensor out, Tensor gate_up) {
  CHECKF(out.rank == 2 && gate_up.is({out.dim[0], 2 * out.dim[1]}), "geglu: gate_up {} must be twice as wide as out {}",
         gate_up, out);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), geglu(ctx, out, gate_up));
}

namespace {

// 1/2 (1 + tanh(z)) is 1 / (1 + exp(-2z)): one exponential, and no cancellation for negative z.
inline float gelu(float g) {
  const float z2 = 1.5957691216057308f * (g + 0.044715f * g * g * g);  // 2 sqrt(2/pi)
  return g / (1.0f + vector_exp(-z2));
}

}  // namespace

void cpu::geglu(Context&, Tensor out, Tensor gate_up) {
  const int64_t n = out.dim[0], ffn = out.dim[1];
  dispatch_float(out.dtype, [&]<class Out>() {
    dispatch_float(gate_up.dtype, [&]<class In>() {
      Out* o = out.data<Out>();
      const In* in = gate_up.data<In>();
      parallel_for(n, 8, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const In *gate = in + 2 * r * ffn, *up = gate + ffn;
          Out* to = o + r * ffn;
#pragma omp simd
          for (int64_t c = 0; c < ffn; ++c) store(to + c, gelu(to_float(gate[c])) * to_float(up[c]));
        }
      });
    });
  });
}

}  // namespace gsae
