#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Between the encoder as files have it, (d, F) on the host, and as it is trained, (F, d) on the device, f32: a part at
// a time, so that a wide one is never twice in the host's memory. Both wait until it is done.
void load_transposed(Context& ctx, Tensor to, Tensor from);  // to (F, d) on the device = from^T
void save_transposed(Context& ctx, Tensor to, Tensor from);  // to (d, F) on the host = from^T

}  // namespace gsae
