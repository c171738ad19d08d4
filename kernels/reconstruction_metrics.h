#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Columns of reconstruction_metrics.
enum ReconstructionMetric : int {
  kErrorSquare,    // |x_hat - x|^2
  kNormSquare,     // |x|^2
  kHatSquare,      // |x_hat|^2
  kDot,            // x . x_hat
  kCentredSquare,  // |x - centre|^2
  kReconstructionMetrics
};

// What evaluation needs to know of each row and its reconstruction, summed in f64:
//
//   metrics  (n, 5)  f64
//   x_hat    (n, d)  f32
//   x        (n, d)  f32
//   centre   (d)     f32
//
// Memory-bound: moves 2 * x.bytes().
void reconstruction_metrics(Context& ctx, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre);

namespace cpu {
void reconstruction_metrics(Context& ctx, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre);
}
namespace cuda {
void reconstruction_metrics(Context& ctx, Tensor metrics, Tensor x_hat, Tensor x, Tensor centre);
}

}  // namespace gsae
