#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae::cpu {

// Whether linear() (kernels/matmul.h) goes this way on the cpu: x has so few rows that the weights' way from memory is
// what it costs.
bool has_few_rows(Tensor x);

// linear() for such an x: weights are read once, as they are stored (a mapped bf16 checkpoint by its bytes), and
// nothing is converted in memory. Sums in f32, in an order that depends on k alone: the bits depend neither on the
// other rows nor on the number of threads. Operands are checked already.
void linear_few_rows(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights);

}  // namespace gsae::cpu
