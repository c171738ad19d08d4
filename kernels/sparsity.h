#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The state of the sparsity penalty, in device memory: control (4) f32.
enum Control : int {
  kLambda,        // the coefficient that this step uses
  kLambdaScale,   // of the warm-up: lambda = kLambdaScale * kLambdaSteady
  kLambdaSteady,  // given, or what the controller has found so far
  kTargetL0,      // this step's target; 0: none
  kControls
};

// The penalty's value and derivative for each row:
//
//   linear     penalty = lambda * l0                             dl0 = lambda / batch
//   quadratic  penalty = lambda * (2/L0*) (l0 - L0*)^2           dl0 = lambda * (4/L0*) (l0 - L0*) / batch
//
//   dl0, penalty  (n)  f32
//   l0            (n)  f32
//   control       (4)  f32; batch: rows of the whole step, of which these may be a part
//
// Gemma Scope (linear), arXiv:2408.05147; Gemma Scope 2 (quadratic).
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);

struct ControllerGains {
  float integral = 0;      // how far one step moves log(lambda) per unit of log(L0 / target)
  float proportional = 0;  // how far lambda leans for the time that L0 is off
};

// Proportional-integral control of lambda, in logarithms, from the L0 of the rows of one step:
//
//   e = clamp(log(mean(l0) / target), -1, 1)
//   log steady += integral * e;    lambda = scale * steady * exp(proportional * e)
//
// Without gains, lambda = scale * steady. Little work, but on the device, so that no step waits.
void control_sparsity(Context& ctx, Tensor control, Tensor l0, ControllerGains gains);

namespace cpu {
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);
void control_sparsity(Context& ctx, Tensor control, Tensor l0, ControllerGains gains);
}  // namespace cpu
namespace cuda {
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);
void control_sparsity(Context& ctx, Tensor control, Tensor l0, ControllerGains gains);
}  // namespace cuda

}  // namespace gsae
