#include "kernels/examples.h"

#include "kernels/example_lists.h"
#include "kernels/launch.h"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 64;  // few: so that as many multiprocessors as there are have work
constexpr int kRows = 8;      // that a thread has under way at once

// A thread owns a latent, so that its rows come in order.
__global__ void __launch_bounds__(kThreads, 16)
    add_examples_kernel(ExampleTables tables, const float* f, const int32_t* rows, int64_t n, int64_t latents,
                        int32_t T, uint64_t seed) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= latents) return;
  const LatentExamples lists = tables.of(i);
  const Random random(seed, Random::kSampleExamples, static_cast<uint64_t>(i));
  int32_t count = 0;
  double sum = tables.sum[i];
  for (int64_t r = 0; r < n; r += kRows) {
    uint32_t active = 0;  // a bit for each row; few are, and their f is read again
#pragma unroll
    for (int k = 0; k < kRows; ++k)
      if (r + k < n && f[(r + k) * latents + i] != 0) active |= 1u << k;
    for (; active != 0; active &= active - 1) {
      const int64_t at = r + std::countr_zero(active);
      const float v = f[at * latents + i];
      if (!is_finite_activation(v)) {
        *tables.faults = 1;
        continue;
      }
      ++count;
      sum += v;
      lists.add(v, rows[at], T, random);
    }
  }
  tables.count[i] += count;
  tables.sum[i] = sum;
}

__global__ void clear_scale_kernel(int32_t* scale, int64_t latents) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < latents) scale[i] = Examples::kNoScale;
}

}  // namespace

void clear_examples(Context& ctx, const Examples& e) {
  const Range range("clear_examples");
  const cudaStream_t stream = ctx.cuda().stream;
  for (const Tensor& t : {e.count, e.sum, e.histogram, e.faults})
    CUDA_CHECK(cudaMemsetAsync(t.ptr, 0, t.bytes(), stream));
  for (const Tensor& t : {e.top_row, e.band_row}) CUDA_CHECK(cudaMemsetAsync(t.ptr, 0xff, t.bytes(), stream));  // -1
  if (e.latents() == 0) return;
  launch(clear_scale_kernel, (e.latents() + 255) / 256, 256, 0, stream, e.scale.data<int32_t>(), e.latents());
}

void add_examples(Context& ctx, const Examples& e, Tensor f, Tensor row, int64_t T, uint64_t seed) {
  const Range range("add_examples");
  const int64_t n = f.dim[0], latents = f.dim[1];
  launch(add_examples_kernel, (latents + kThreads - 1) / kThreads, kThreads, 0, ctx.cuda().stream, ExampleTables(e),
         f.data<float>(), row.data<int32_t>(), n, latents, static_cast<int32_t>(T), seed);
}

}  // namespace gsae::cuda
