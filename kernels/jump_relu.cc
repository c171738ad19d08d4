#include "kernels/jump_relu.h"

#include <cmath>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void jump_relu(Context& ctx, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired) {
  CHECKF(z.rank == 2 && z.dtype == DType::kF32, "jump_relu: z {} must be f32 (n, F)", z);
  const int64_t n = z.dim[0], latents = z.dim[1];
  CHECKF(f.is({n, latents}), "jump_relu: f {} must match z {}", f, z);
  CHECKF(theta.is({latents}), "jump_relu: theta {} must be ({})", theta, latents);
  CHECKF(!l0 || (l0.is({n}) && l0.dtype == DType::kF32), "jump_relu: l0 {} must be f32[{}]", l0, n);
  CHECKF(!fired || (fired.is({latents}) && fired.dtype == DType::kI32), "jump_relu: fired {} must be i32[{}]", fired,
         latents);
  if (z.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), jump_relu(ctx, f, z, theta, l0, fired));
}

void jump_relu_backward(Context& ctx, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                        Tensor dl0, float bandwidth) {
  CHECKF(z.rank == 2, "jump_relu_backward: z {} must be (n, F)", z);
  const int64_t n = z.dim[0], latents = z.dim[1];
  CHECKF(dz.is({n, latents}) && df.is({n, latents}), "jump_relu_backward: dz {} and df {} must match z {}", dz, df, z);
  CHECKF(dbias.is({latents}) && dtheta.is({latents}) && theta.is({latents}),
         "jump_relu_backward: dbias {}, dtheta {} and theta {} must be ({})", dbias, dtheta, theta, latents);
  CHECKF(dl0.is({n}), "jump_relu_backward: dl0 {} must be ({})", dl0, n);
  CHECKF(bandwidth > 0, "jump_relu_backward: bandwidth {} must be positive", bandwidth);
  if (z.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), jump_relu_backward(ctx, dz, dbias, dtheta, df, z, theta, dl0, bandwidth));
}

namespace {
// Each thread owns a stripe of latents for all rows, so that sums over rows need no second pass. Wide enough for long
// runs of consecutive bytes, narrow enough to feed many cores.
constexpr int64_t kStripe = 512;
}  // namespace

void cpu::jump_relu(Context&, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired) {
  const int64_t n = z.dim[0], latents = z.dim[1];
  const float *zs = z.data<float>(), *t = theta.data<float>();
  dispatch_float(f.dtype, [&]<class T>() {
    T* fs = f.data<T>();
    parallel_for(n, 16, [&](int64_t begin, int64_t end) {
      const float* theta_of = t;  // a captured pointer is read anew for every element, by gathers
      for (int64_t r = begin; r < end; ++r) {
        const float* zr = zs + r * latents;
        T* fr = fs + r * latents;
        int32_t count = 0;
#pragma omp simd reduction(+ : count)
        for (int64_t i = 0; i < latents; ++i) {
          const float v = zr[i];
          const bool on = !(v <= theta_of[i]);  // NaN is on, and shows
          store(fr + i, on ? v : 0.0f);
          count += on;
        }
        if (l0) l0.data<float>()[r] = static_cast<float>(count);
      }
    });
    if (!fired) return;
    int32_t* c = fired.data<int32_t>();
    parallel_for(latents, kStripe, [&](int64_t begin, int64_t end) {
      for (int64_t r = 0; r < n; ++r) {
        const T* fr = fs + r * latents;
        // f is zero exactly where z <= theta, as theta >= 0
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) c[i] += to_float(fr[i]) != 0.0f;
      }
    });
  });
}

void cpu::jump_relu_backward(Context&, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                             Tensor dl0, float bandwidth) {
  const int64_t n = z.dim[0], latents = z.dim[1];
  const float *t = theta.data<float>(), *zs = z.data<float>(), *dfs = df.data<float>(), *row = dl0.data<float>();
  float *db = dbias.data<float>(), *dt = dtheta.data<float>();
  const float half = bandwidth / 2, scale = -1 / bandwidth;
  dispatch_float(dz.dtype, [&]<class T>() {
    T* dzs = dz.data<T>();
    parallel_for(latents, kStripe, [&](int64_t begin, int64_t end) {
      const int64_t width = end - begin;
      float sum_b[kStripe] = {}, sum_t[kStripe] = {};
      for (int64_t r = 0; r < n; ++r) {
        const int64_t at = r * latents + begin;
        const float *zr = zs + at, *dfr = dfs + at, *tr = t + begin, penalty = row[r];
        T* dzr = dzs + at;
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) {
          const float g = dfr[i], d = zr[i] > tr[i] ? g : 0.0f;
          sum_t[i] += std::fabs(zr[i] - tr[i]) < half ? tr[i] * g + penalty : 0.0f;
          sum_b[i] += d;
          store(dzr + i, d);
        }
      }
      for (int64_t i = 0; i < width; ++i) db[begin + i] += sum_b[i], dt[begin + i] += scale * sum_t[i];
    });
  });
}

}  // namespace gsae
