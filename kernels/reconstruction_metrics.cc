#include "kernels/reconstruction_metrics.h"

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void reconstruction_metrics(Context& ctx, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "reconstruction_metrics: x {} must be f32 (n, d)", x);
  CHECKF(x_hat.is({x.dim[0], x.dim[1]}) && x_hat.dtype == DType::kF32,
         "reconstruction_metrics: x_hat {} must match x {}", x_hat, x);
  CHECKF(centre.is({x.dim[1]}) && centre.dtype == DType::kF32, "reconstruction_metrics: centre {} must be f32[{}]",
         centre, x.dim[1]);
  CHECKF(metrics.is({x.dim[0], kReconstructionMetrics}) && metrics.dtype == DType::kF64,
         "reconstruction_metrics: metrics {} must be f64[{}, {}]", metrics, x.dim[0], int{kReconstructionMetrics});
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), reconstruction_metrics(ctx, metrics, x_hat, x, centre));
}

void cpu::reconstruction_metrics(Context&, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre) {
  const int64_t d = x.dim[1];
  const float *hats = x_hat.data<float>(), *xs = x.data<float>(), *c = centre.data<float>();
  double* out = metrics.data<double>();
  parallel_for(x.dim[0], 16, [&](int64_t begin, int64_t end) {
    const float* centre_of = c;  // a captured pointer is read anew for every element, by gathers
    for (int64_t r = begin; r < end; ++r) {
      const float *hat = hats + r * d, *row = xs + r * d;
      double error = 0, norm = 0, hat_norm = 0, dot = 0, centred = 0;
#pragma omp simd reduction(+ : error, norm, hat_norm, dot, centred)
      for (int64_t i = 0; i < d; ++i) {
        const double a = row[i], b = hat[i], e = b - a, o = a - centre_of[i];
        error += e * e;
        norm += a * a;
        hat_norm += b * b;
        dot += a * b;
        centred += o * o;
      }
      double* m = out + r * kReconstructionMetrics;
      m[kErrorSquare] = error;
      m[kNormSquare] = norm;
      m[kHatSquare] = hat_norm;
      m[kDot] = dot;
      m[kCentredSquare] = centred;
    }
  });
}

}  // namespace gsae
