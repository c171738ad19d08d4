#include "kernels/statistics.h"

#include "kernels/launch.h"
#include "kernels/partial_sums.cuh"
#include "kernels/reduce.cuh"
#include "kernels/row_chunks.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kSumWarps = 32;

// One block: x is a batch's worth.
template <class T>
__global__ void __launch_bounds__(32 * kSumWarps) add_sum_kernel(double* total, const T* x, int64_t n) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < n; i += 32 * kSumWarps) sum += x[i];
  sum = block_sum<kSumWarps>(sum);
  if (threadIdx.x == 0) *total += sum;
}

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kRows = 4;  // that a thread has under way at once

// A block owns a chunk of rows (blockIdx.x) and a stripe of kThreads * kWidth columns (blockIdx.y).
//   sums (chunks, d);  squares (stripes, chunks)
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(double* sums, double* squares, const float* x, int64_t n, int64_t d, int64_t chunk) {
  const int64_t begin = int64_t(blockIdx.x) * chunk, rows = min(chunk, n - begin);
  const int64_t column = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  double sum[kWidth] = {}, square = 0;
  if (column < d) {
    for (int64_t r = 0; r < rows; r += kRows) {
      float v[kRows][kWidth] = {};
#pragma unroll
      for (int k = 0; k < kRows; ++k)
        if (r + k < rows) load_row(v[k], x + (begin + r + k) * d + column);
#pragma unroll
      for (int k = 0; k < kRows; ++k)
        for (int i = 0; i < kWidth; ++i) {
          const double e = v[k][i];
          sum[i] += e;
          square += e * e;
        }
    }
    for (int i = 0; i < kWidth; ++i) sums[blockIdx.x * d + column + i] = sum[i];
  }
  square = block_sum<kWarps>(square);
  if (threadIdx.x == 0) squares[int64_t(blockIdx.y) * gridDim.x + blockIdx.x] = square;
}

__global__ void update_idle_kernel(int64_t* idle, int64_t* total, int32_t* fired, int64_t latents, int64_t rows) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= latents) return;
  const int32_t count = fired[i];
  idle[i] = count > 0 ? 0 : idle[i] + rows;
  total[i] += count;
  fired[i] = 0;
}

// What is known of some of the latents.
struct Summary {
  double dead = 0, sum = 0;
  float lowest = HUGE_VALF, highest = -HUGE_VALF;

  __device__ void add(const Summary& s) {
    dead += s.dead;
    sum += s.sum;
    lowest = fminf(lowest, s.lowest);  // of two, the one that is a number
    highest = fmaxf(highest, s.highest);
  }
};

constexpr int kSummaryWarps = 8, kSummaryThreads = 32 * kSummaryWarps;

// The block's, to its first thread.
__device__ Summary summary_of_block(Summary s) {
  s.dead = block_sum<kSummaryWarps>(s.dead);
  s.sum = block_sum<kSummaryWarps>(s.sum);
  for (int lane = 16; lane > 0; lane /= 2) {
    s.lowest = fminf(s.lowest, __shfl_xor_sync(kAllLanes, s.lowest, lane));
    s.highest = fmaxf(s.highest, __shfl_xor_sync(kAllLanes, s.highest, lane));
  }
  __shared__ float lowest[kSummaryWarps], highest[kSummaryWarps];
  if (threadIdx.x % 32 == 0) lowest[threadIdx.x / 32] = s.lowest, highest[threadIdx.x / 32] = s.highest;
  __syncthreads();
  for (int w = 0; w < kSummaryWarps; ++w) {
    s.lowest = fminf(s.lowest, lowest[w]);
    s.highest = fmaxf(s.highest, highest[w]);
  }
  return s;
}

__global__ void __launch_bounds__(kSummaryThreads)
    summarise_part_kernel(Summary* parts, const int64_t* idle, const float* theta, int64_t latents, int64_t part,
                          int64_t window) {
  const int64_t begin = blockIdx.x * part, end = min(latents, begin + part);
  Summary s;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x; i < end; i += kSummaryThreads) {
    const float t = theta[i];
    s.add({idle[i] >= window ? 1.0 : 0.0, t, t, t});
  }
  s = summary_of_block(s);
  if (threadIdx.x == 0) parts[blockIdx.x] = s;
}

__global__ void __launch_bounds__(kSummaryThreads)
    finish_summary_kernel(double* out, const Summary* parts, int64_t count, int64_t latents) {
  Summary s;
  for (int64_t i = threadIdx.x; i < count; i += kSummaryThreads) s.add(parts[i]);
  s = summary_of_block(s);
  if (threadIdx.x > 0) return;
  out[kDeadLatents] = s.dead;
  out[kMeanThreshold] = s.sum / static_cast<double>(latents);
  out[kLowestThreshold] = s.lowest;
  out[kHighestThreshold] = s.highest;
}

}  // namespace

void add_sum(Context& ctx, Tensor total, Tensor x) {
  const Range range("add_sum");
  launch(add_sum_kernel<float>, 1, 32 * kSumWarps, 0, ctx.cuda().stream, total.data<double>(), x.data<float>(),
         x.dim[0]);
}

void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x) {
  const Range range("add_moments");
  const int64_t n = x.dim[0], d = x.dim[1];
  if (n == 0 || d == 0) return;
  const int width = d % 4 == 0 ? 4 : 1;
  const int64_t stripes = (d + kThreads * width - 1) / (kThreads * width);
  const RowChunks chunks =
      row_chunks(n, stripes, sizeof(double) * static_cast<size_t>(d + stripes), ctx.cuda().workspace_bytes);
  double* sums = workspace<double>(ctx, chunks.count * (d + stripes));
  double* squares = sums + chunks.count * d;
  launch(width == 4 ? moments_kernel<4> : moments_kernel<1>, Grid(chunks.count, stripes), kThreads, 0,
         ctx.cuda().stream, sums, squares, x.data<float>(), n, d, chunks.rows);
  sum_partials<double>(ctx, {sum.data<double>(), sums, chunks.count, d, 1, true});
  launch(add_sum_kernel<double>, 1, 32 * kSumWarps, 0, ctx.cuda().stream, square.data<double>(), squares,
         chunks.count * stripes);
}

void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows) {
  const Range range("update_idle");
  const int64_t latents = fired.dim[0];
  if (latents == 0) return;
  launch(update_idle_kernel, (latents + 255) / 256, 256, 0, ctx.cuda().stream, idle.data<int64_t>(),
         total.data<int64_t>(), fired.data<int32_t>(), latents, rows);
}

void summarise_latents(Context& ctx, Tensor out, Tensor idle, Tensor theta, int64_t window) {
  const Range range("summarise_latents");
  const int64_t latents = idle.dim[0], part = std::max<int64_t>(1024, (latents + 255) / 256);
  const int64_t count = (latents + part - 1) / part;
  Summary* parts = workspace<Summary>(ctx, count);
  launch(summarise_part_kernel, count, kSummaryThreads, 0, ctx.cuda().stream, parts, idle.data<int64_t>(),
         theta.data<float>(), latents, part, window);
  launch(finish_summary_kernel, 1, kSummaryThreads, 0, ctx.cuda().stream, out.data<double>(), parts, count, latents);
}

}  // namespace gsae::cuda
