#include "kernels/convert.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void convert(Context& ctx, Tensor out, Tensor x) {
  CHECKF(out.size() == x.size(), "convert: out {} and x {} differ in size", out, x);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), convert(ctx, out, x));
}

void cpu::convert(Context&, Tensor out, Tensor x) {
  dispatch_float(out.dtype, [&]<class Out>() {
    dispatch_float(x.dtype, [&]<class In>() {
      Out* o = out.data<Out>();
      const In* in = x.data<In>();
      parallel_for(x.size(), 1 << 15,
                   [&](int64_t begin, int64_t end) { gsae::convert(o + begin, in + begin, end - begin); });
    });
  });
}

}  // namespace gsae
