#include "kernels/rms_norm_residual.h"

#include <algorithm>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/rms_norm_row.h"

namespace gsae {

void rms_norm_residual(Context& ctx, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "rms_norm_residual: x {} must be f32 (n, d)", x);
  const int64_t n = x.dim[0], d = x.dim[1];
  CHECKF(y.is({n, d}) && y.dtype == DType::kF32, "rms_norm_residual: y {} must match x {}", y, x);
  CHECKF(post.is({d}), "rms_norm_residual: post {} must be ({})", post, d);
  CHECKF(!h || (h.is({n, d}) && next.is({d})), "rms_norm_residual: h {} must match x {}, and next {} be ({})", h, x,
         next, d);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), rms_norm_residual(ctx, h, x, y, post, next, eps));
}

namespace {

// x += y * inv_rms * (1 + weight), through memory: were both in one loop, the compiler would fuse
// the last product and the sum into one rounding.
template <class W> void add_scaled(float* x, const float* y, const W* weight, float inv_rms, int64_t d) {
  constexpr int64_t kTile = 256;
  float tile[kTile];
  for (int64_t c = 0; c < d; c += kTile) {
    const int64_t width = std::min(kTile, d - c);
    scale_row(tile, y + c, weight + c, inv_rms, width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) x[c + i] += tile[i];
  }
}

}  // namespace

void cpu::rms_norm_residual(Context&, Tensor h, Tensor x, Tensor y, Tensor post, Tensor next, float eps) {
  const int64_t n = x.dim[0], d = x.dim[1];
  float* xs = x.data<float>();
  const float* ys = y.data<float>();
  const auto run = [&]<class Out, class Post, class Next>() {
    Out* hs = h ? h.data<Out>() : nullptr;
    const Post* w_post = post.data<Post>();
    const Next* w_next = h ? next.data<Next>() : nullptr;
    parallel_for(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float* xr = xs + r * d;
        const float* yr = ys + r * d;
        add_scaled(xr, yr, w_post, inverse_rms(yr, d, eps), d);
        if (hs) scale_row(hs + r * d, xr, w_next, inverse_rms(xr, d, eps), d);
      }
    });
  };
  dispatch_float(h ? h.dtype : DType::kF32, [&]<class Out>() {
    dispatch_float(post.dtype, [&]<class Post>() {
      dispatch_float(h ? next.dtype : DType::kF32, [&]<class Next>() { run.template operator()<Out, Post, Next>(); });
    });
  });
}

}  // namespace gsae
