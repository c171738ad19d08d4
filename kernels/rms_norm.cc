#include "kernels/rms_norm.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/rms_norm_row.h"

namespace gsae {

void rms_norm(Context& ctx, Tensor out, Tensor x, Tensor weight, float eps) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "rms_norm: x {} must be f32 (n, d)", x);
  CHECKF(out.is({x.dim[0], x.dim[1]}), "rms_norm: out {} must match x {}", out, x);
  CHECKF(weight.is({x.dim[1]}), "rms_norm: weight {} must be ({})", weight, x.dim[1]);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), rms_norm(ctx, out, x, weight, eps));
}

void cpu::rms_norm(Context&, Tensor out, Tensor x, Tensor weight, float eps) {
  const int64_t n = x.dim[0], d = x.dim[1];
  const float* in = x.data<float>();
  dispatch_float(out.dtype, [&]<class Out>() {
    dispatch_float(weight.dtype, [&]<class W>() {
      Out* o = out.data<Out>();
      const W* w = weight.data<W>();
      parallel_for(n, 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) scale_row(o + r * d, in + r * d, w, inverse_rms(in + r * d, d, eps), d);
      });
    });
  });
}

}  // namespace gsae
