#include "kernels/sparsity.h"

#include <cmath>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"

namespace gsae {

void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch) {
  CHECKF(l0.rank == 1 && dl0.is({l0.dim[0]}) && penalty.is({l0.dim[0]}), "sparsity_penalty: dl0 {}, penalty {}, l0 {}",
         dl0, penalty, l0);
  CHECKF(control.is({kControls}), "sparsity_penalty: control {} must be ({})", control, int{kControls});
  GSAE_DISPATCH(ctx.device(), sparsity_penalty(ctx, dl0, penalty, l0, control, quadratic, batch));
}

void control_sparsity(Context& ctx, Tensor control, Tensor l0, ControllerGains gains) {
  CHECKF(control.is({kControls}) && l0.rank == 1, "control_sparsity: control {} and l0 {}", control, l0);
  GSAE_DISPATCH(ctx.device(), control_sparsity(ctx, control, l0, gains));
}

void cpu::sparsity_penalty(Context&, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                           int64_t batch) {
  const float *count = l0.data<float>(), *c = control.data<float>();
  float *d = dl0.data<float>(), *p = penalty.data<float>();
  const float lambda = c[kLambda], target = c[kTargetL0];
  for (int64_t r = 0; r < l0.dim[0]; ++r) {
    const float off = count[r] - target;
    p[r] = quadratic ? lambda * (2 / target) * off * off : lambda * count[r];
    d[r] = (quadratic ? lambda * (4 / target) * off : lambda) / static_cast<float>(batch);
  }
}

void cpu::control_sparsity(Context&, Tensor control, Tensor l0, ControllerGains gains) {
  float* c = control.data<float>();
  float lean = 0;
  if (gains.integral > 0 || gains.proportional > 0) {
    double sum = 0;
    const float* count = l0.data<float>();
    for (int64_t r = 0; r < l0.dim[0]; ++r) sum += count[r];
    const double mean = std::max(sum / static_cast<double>(l0.dim[0]), 1e-3);
    const float e = static_cast<float>(std::clamp(std::log(mean / c[kTargetL0]), -1.0, 1.0));
    c[kLambdaSteady] *= std::exp(gains.integral * e);
    lean = gains.proportional * e;
  }
  c[kLambda] = c[kLambdaScale] * c[kLambdaSteady] * std::exp(lean);
}

}  // namespace gsae
