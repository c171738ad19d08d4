#include "kernels/sparsity.h"

#include <algorithm>
#include <cmath>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch) {
  CHECKF(l0.rank == 1 && dl0.is({l0.dim[0]}) && penalty.is({l0.dim[0]}), "sparsity_penalty: dl0 {}, penalty {}, l0 {}",
         dl0, penalty, l0);
  CHECKF(control.is({kControls}), "sparsity_penalty: control {} must be ({})", control, int{kControls});
  GSAE_DISPATCH(ctx.device(), sparsity_penalty(ctx, dl0, penalty, l0, control, quadratic, batch));
}

void control_sparsity(Context& ctx, Tensor control, Tensor l0, Tensor error, ControllerGains gains) {
  CHECKF(control.is({kControls}) && l0.rank == 1 && (!gains.any() || error.is({l0.dim[0]})),
         "control_sparsity: control {}, l0 {}, error {}", control, l0, error);
  GSAE_DISPATCH(ctx.device(), control_sparsity(ctx, control, l0, error, gains));
}

void move_thresholds(Context& ctx, Tensor threshold, Tensor control) {
  CHECKF(control.is({kControls}) && threshold.rank == 1 && threshold.dtype == DType::kF32,
         "move_thresholds: threshold {} and control {}", threshold, control);
  if (threshold.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), move_thresholds(ctx, threshold, control));
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

namespace {

double mean(Tensor values) {
  double sum = 0;
  for (int64_t r = 0; r < values.dim[0]; ++r) sum += values.data<float>()[r];
  return sum / static_cast<double>(values.dim[0]);
}

}  // namespace

void cpu::control_sparsity(Context&, Tensor control, Tensor l0, Tensor error, ControllerGains gains) {
  float* c = control.data<float>();
  if (!gains.any()) {
    c[kLambda] = c[kLambdaScale] * c[kLambdaSteady];
    return;
  }
  const double target = c[kTargetL0], unit = mean(error) / target;
  const auto e = static_cast<float>(std::clamp(std::log(std::max(mean(l0), 1e-3) / target), -1.0, 1.0));
  const float rise = c[kTargetRise], expected = e - rise;
  const bool begins = c[kLambdaSteady] == 0 || !(unit >= 0);  // NaN stays
  const double from = begins ? kFirstLambda * unit : double(c[kLambdaSteady]);
  const auto steady = static_cast<float>(
      std::clamp(from * double(std::exp(gains.integral * e - rise)), kLeastLambda * unit, kMostLambda * unit));
  c[kLambdaSteady] = steady;
  c[kLambda] = c[kLambdaScale] * steady * std::exp(gains.proportional * expected);
  c[kThresholdFactor] = std::exp(gains.threshold * expected);
}

void cpu::move_thresholds(Context&, Tensor threshold, Tensor control) {
  float* t = threshold.data<float>();
  const float factor = control.data<float>()[kThresholdFactor];
  parallel_for(threshold.dim[0], 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) t[i] *= factor;
  });
}

}  // namespace gsae
