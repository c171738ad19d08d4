#include "kernels/attention.h"

#include "kernels/attention_cuda.h"
#include "kernels/cuda.h"

namespace gsae::cuda {

void attention(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options) {
  const Range range("attention");
  if (q.dtype == DType::kF32) return attention_f32(ctx, out, q, k, v, options);
  int shared_bytes = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, ctx.cuda().index));
  attention_bf16(ctx, out, q, k, v, options, shared_bytes);
}

}  // namespace gsae::cuda
