#include "kernels/reconstruction.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void reconstruction_error(Context& ctx, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                          float scale) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "reconstruction_error: x {} must be f32 (n, d)", x);
  const int64_t n = x.dim[0], d = x.dim[1];
  CHECKF(dx.is({n, d}) && x_hat.is({n, d}) && x_hat.dtype == DType::kF32,
         "reconstruction_error: dx {} and x_hat {} must match x {}", dx, x_hat, x);
  CHECKF(error.is({n}) && dbias.is({d}) && bias.is({d}), "reconstruction_error: error {}, dbias {} and bias {}", error,
         dbias, bias);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), reconstruction_error(ctx, dx, error, dbias, x_hat, bias, x, scale));
}

void cpu::reconstruction_error(Context&, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                               float scale) {
  const int64_t n = x.dim[0], d = x.dim[1];
  float *e = x_hat.data<float>(), *err = error.data<float>(), *db = dbias.data<float>();
  const float *b = bias.data<float>(), *in = x.data<float>();
  parallel_for(n, 64, [&](int64_t begin, int64_t end) {
    const float* bias_of = b;  // captured pointers are read anew for every element, by gathers
    for (int64_t r = begin; r < end; ++r) {
      float* er = e + r * d;
      const float* row = in + r * d;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t c = 0; c < d; ++c) {
        er[c] += bias_of[c] - row[c];
        sum += er[c] * er[c];
      }
      err[r] = sum;
    }
  });
  constexpr int64_t kStripe = 64;
  dispatch_float(dx.dtype, [&]<class T>() {
    T* out = dx.data<T>();
    parallel_for(d, kStripe, [&](int64_t begin, int64_t end) {
      float sum[kStripe] = {};
      for (int64_t r = 0; r < n; ++r) {
        const float* er = e + r * d + begin;
        T* o = out + r * d + begin;
#pragma omp simd
        for (int64_t c = 0; c < end - begin; ++c) {
          const float g = scale * er[c];
          sum[c] += g;
          store(o + c, g);
        }
      }
      for (int64_t c = 0; c < end - begin; ++c) db[begin + c] += sum[c];
    });
  });
}

}  // namespace gsae
