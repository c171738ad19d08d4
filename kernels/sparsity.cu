#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/sparsity.h"

namespace gsae::cuda {
namespace {

// The formulas as the CPU writes them (kernels/sparsity.cc), which has the same bits but for exp and log.

__global__ void sparsity_penalty_kernel(float* dl0, float* penalty, const float* l0, const float* control,
                                        bool quadratic, float batch, int64_t n) {
  const int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r >= n) return;
  const float lambda = control[kLambda], target = control[kTargetL0], off = l0[r] - target;
  penalty[r] = quadratic ? lambda * (2 / target) * off * off : lambda * l0[r];
  dl0[r] = (quadratic ? lambda * (4 / target) * off : lambda) / batch;
}

constexpr int kWarps = 32, kThreads = 32 * kWarps;

__global__ void __launch_bounds__(kThreads)
    control_sparsity_kernel(float* control, const float* l0, const float* error, int64_t n, ControllerGains gains) {
  if (!gains.any()) {
    if (threadIdx.x == 0) control[kLambda] = control[kLambdaScale] * control[kLambdaSteady];
    return;
  }
  double count = 0, square = 0;
#pragma unroll 4
  for (int64_t r = threadIdx.x; r < n; r += kThreads) {
    count += l0[r];
    square += error[r];
  }
  count = block_sum<kWarps>(count);
  square = block_sum<kWarps>(square);
  if (threadIdx.x > 0) return;
  const double rows = static_cast<double>(n), target = control[kTargetL0], unit = square / rows / target;
  double mean = count / rows;
  if (mean < 1e-3) mean = 1e-3;
  double off = log(mean / target);
  off = off < -1 ? -1 : off > 1 ? 1 : off;  // NaN stays
  const float e = static_cast<float>(off), rise = control[kTargetRise], expected = e - rise;
  const bool begins = control[kLambdaSteady] == 0 || !(unit >= 0);  // NaN stays
  const double from = begins ? kFirstLambda * unit : double(control[kLambdaSteady]);
  double next = from * double(expf(gains.integral * e - rise));
  next = next < kLeastLambda * unit ? kLeastLambda * unit : next > kMostLambda * unit ? kMostLambda * unit : next;
  const float steady = static_cast<float>(next);
  control[kLambdaSteady] = steady;
  control[kLambda] = control[kLambdaScale] * steady * expf(gains.proportional * expected);
  control[kThresholdFactor] = expf(gains.threshold * expected);
}

__global__ void move_thresholds_kernel(float* threshold, const float* control, int64_t latents) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < latents) threshold[i] *= control[kThresholdFactor];
}

}  // namespace

void sparsity_penalty(Context& ctx, Tensor dl0, Tensor penalty, Tensor l0, Tensor control, bool quadratic,
                      int64_t batch) {
  const Range range("sparsity_penalty");
  const int64_t n = l0.dim[0];
  if (n == 0) return;
  launch(sparsity_penalty_kernel, (n + 255) / 256, 256, 0, ctx.cuda().stream, dl0.data<float>(), penalty.data<float>(),
         l0.data<float>(), control.data<float>(), quadratic, static_cast<float>(batch), n);
}

void control_sparsity(Context& ctx, Tensor control, Tensor l0, Tensor error, ControllerGains gains) {
  const Range range("control_sparsity");
  launch(control_sparsity_kernel, 1, kThreads, 0, ctx.cuda().stream, control.data<float>(), l0.data<float>(),
         gains.any() ? error.data<float>() : nullptr, l0.dim[0], gains);
}

void move_thresholds(Context& ctx, Tensor threshold, Tensor control) {
  const Range range("move_thresholds");
  const int64_t latents = threshold.dim[0];
  launch(move_thresholds_kernel, (latents + 255) / 256, 256, 0, ctx.cuda().stream, threshold.data<float>(),
         control.data<float>(), latents);
}

}  // namespace gsae::cuda
