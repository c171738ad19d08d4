#include "kernels/next_tokens.h"

#include <algorithm>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"

namespace gsae {

void next_tokens(Context& ctx, Tensor targets, Tensor tokens) {
  CHECKF(tokens.rank == 2 && tokens.dtype == DType::kI32, "next_tokens: tokens {} must be i32 (B, T)", tokens);
  CHECKF(targets.is({tokens.dim[0], tokens.dim[1]}) && targets.dtype == DType::kI32,
         "next_tokens: targets {} must match tokens {}", targets, tokens);
  if (tokens.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), next_tokens(ctx, targets, tokens));
}

void cpu::next_tokens(Context&, Tensor targets, Tensor tokens) {
  const int64_t T = tokens.dim[1];
  for (int64_t b = 0; b < tokens.dim[0]; ++b) {
    const int32_t* from = tokens.data<int32_t>() + b * T;
    int32_t* to = targets.data<int32_t>() + b * T;
    std::copy(from + 1, from + T, to);
    to[T - 1] = -1;
  }
}

}  // namespace gsae
