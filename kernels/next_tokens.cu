#include "kernels/launch.h"
#include "kernels/next_tokens.h"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    next_tokens_kernel(int32_t* targets, const int32_t* __restrict__ tokens, int64_t n, int64_t T) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n) targets[i] = (i + 1) % T == 0 ? -1 : tokens[i + 1];
}

}  // namespace

void next_tokens(Context& ctx, Tensor targets, Tensor tokens) {
  const Range range("next_tokens");
  const int64_t n = tokens.size();
  launch(next_tokens_kernel, (n + kThreads - 1) / kThreads, kThreads, 0, ctx.cuda().stream, targets.data<int32_t>(),
         tokens.data<int32_t>(), n, tokens.dim[1]);
}

}  // namespace gsae::cuda
