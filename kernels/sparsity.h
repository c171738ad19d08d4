#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The state of the sparsity penalty, in device memory: control (kControls) f32.
enum Control : int {
  kLambda,           // the coefficient that this step uses
  kLambdaSteady,     // given, or what the controller has found so far; 0: it has not begun
  kLambdaScale,      // of the warm-up: lambda = kLambdaScale * kLambdaSteady
  kTargetL0,         // this step's target; 0: none
  kTargetRise,       // log(the next step's target / this one's)
  kThresholdFactor,  // the controller's, for all thresholds after this step
  kControls
};

// The penalty's value and derivative for each row:
//
//   linear     penalty = lambda * l0                             dl0 = lambda / batch
//   quadratic  penalty = lambda * (2/L0*) (l0 - L0*)^2           dl0 = lambda * (4/L0*) (l0 - L0*) / batch
//
//   dl0, penalty  (n)  f32
//   l0            (n)  f32
//   control       (kControls)  f32; batch: rows of the whole step, of which these may be a part
//
// Gemma Scope (linear), arXiv:2408.05147; Gemma Scope 2 (quadratic).
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);

struct ControllerGains {
  float integral = 0;      // how far one step moves log(lambda) per unit of log(L0 / target)
  float proportional = 0;  // how far lambda leans for the time that L0 is off
  float threshold = 0;     // how far one step moves the logarithm of all thresholds
  constexpr bool any() const { return integral > 0 || proportional > 0 || threshold > 0; }
};

// Where the controller starts lambda, and the bounds within which it moves: in units of mean(error) / target, the
// squared error that there is for each latent allowed. An SAE's error falls about as a power of its L0, so that the
// lambda which holds an L0 is some tenths of this unit whatever the model and width; far below it lambda does nothing,
// and a controller that had wandered there would be long in coming back.
constexpr double kFirstLambda = 0.3, kLeastLambda = 0.02, kMostLambda = 50;

// Control of lambda and of the thresholds, in logarithms, from the L0 and the squared errors of the rows of one step:
//
//   e = clamp(log(mean(l0) / target), -1, 1);    expected = e - rise;    unit = mean(error) / target
//   steady = clamp((steady, or kFirstLambda unit if 0) exp(integral e - rise), kLeastLambda unit, kMostLambda unit)
//   lambda = scale steady exp(proportional expected);   threshold_factor = exp(threshold expected)
//
// What a target that rises asks for is known beforehand, and is not left to the error that it would make: the L0 is
// `rise` further below the next target, and the lambda that holds an L0 is in proportion to the unit, 1 / target.
// l0, error (n) f32. Without gains lambda = scale * steady, the factor stays, and error is not used. Little work, but
// on the device, so that no step waits.
void control_sparsity(Context& ctx, Tensor control, Tensor l0, Tensor error, ControllerGains gains);

// threshold (F) f32 *= control[kThresholdFactor]. Memory-bound: 8 F bytes.
void move_thresholds(Context& ctx, Tensor threshold, Tensor control);

namespace cpu {
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);
void control_sparsity(Context& ctx, Tensor control, Tensor l0, Tensor error, ControllerGains gains);
void move_thresholds(Context& ctx, Tensor threshold, Tensor control);
}  // namespace cpu
namespace cuda {
void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch);
void control_sparsity(Context& ctx, Tensor control, Tensor l0, Tensor error, ControllerGains gains);
void move_thresholds(Context& ctx, Tensor threshold, Tensor control);
}  // namespace cuda

}  // namespace gsae
