#include "kernels/add_bias.h"
#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 128, kRows = 8;

// A thread takes kStep columns of kRows rows: the bias is read once for them, and all loads are on their way before the
// first store, which might for all the compiler knows overwrite what the next one loads.
template <int kStep>
__global__ void __launch_bounds__(kThreads)
    add_bias_kernel(float* x, const float* __restrict__ bias, int64_t n, int64_t d, int64_t column_blocks) {
  const int64_t c = (blockIdx.x % column_blocks * kThreads + threadIdx.x) * kStep;
  const int64_t row = blockIdx.x / column_blocks * kRows;
  if (c >= d) return;
  float b[kStep], v[kRows][kStep];
  load_row<kStep>(b, bias + c);
  for (int r = 0; r < kRows; ++r)
    if (row + r < n) load_row<kStep>(v[r], x + (row + r) * d + c);
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= n) break;
    for (int i = 0; i < kStep; ++i) v[r][i] += b[i];
    store_row<kStep>(x + (row + r) * d + c, v[r]);
  }
}

}  // namespace

void add_bias(Context& ctx, Tensor x, Tensor bias) {
  const Range range("add_bias");
  const int64_t n = x.dim[0], d = x.dim[1];
  const bool vector = d % 4 == 0 && aligned(16, {x.ptr, bias.ptr});
  const int64_t columns = kThreads * (vector ? 4 : 1), column_blocks = (d + columns - 1) / columns;
  launch(vector ? add_bias_kernel<4> : add_bias_kernel<1>, (n + kRows - 1) / kRows * column_blocks, kThreads, 0,
         ctx.cuda().stream, x.data<float>(), bias.data<float>(), n, d, column_blocks);
}

}  // namespace gsae::cuda
