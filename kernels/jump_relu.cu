#include "kernels/jump_relu.h"

#include "kernels/launch.h"
#include "kernels/partial_sums.cuh"
#include "kernels/reduce.cuh"
#include "kernels/row_chunks.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kRows = 4;  // that a thread has under way at once

// A block owns a chunk of rows (blockIdx.x) and a stripe of kThreads * kWidth latents (blockIdx.y), a thread kWidth
// consecutive latents of it: so what belongs to a latent stays in registers for all rows of the chunk.

// counts: l0 while it is being counted, in integers, zero before. Either of counts and fired may be null.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads) jump_relu_kernel(T* f, const float* z, const float* theta, int32_t* counts,
                                                             int32_t* fired, int64_t n, int64_t latents, int chunk) {
  static_assert(kWidth <= 4 && kRows <= 4 && RowChunks::kMostRows < 256, "four counts of 8 bits in a register");
  __shared__ int32_t of_row[kWarps][RowChunks::kMostRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = int64_t(blockIdx.x) * chunk;
  const int rows = static_cast<int>(min(int64_t{chunk}, n - begin));
  const int64_t column = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  const bool inside = column < latents;  // all kWidth are, or none
  z += begin * latents + column, f += begin * latents + column;

  float t[kWidth] = {};
  if (inside) load_row(t, theta + column);
  uint32_t of_latent = 0;  // a count of rows for each
  for (int r = 0; r < rows; r += kRows) {
    float v[kRows][kWidth] = {};
#pragma unroll
    for (int k = 0; k < kRows; ++k)
      if (inside && r + k < rows) load_row(v[k], z + k * latents);
    uint32_t of_rows = 0;  // a count of latents for each, 128 at most in a warp
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (!inside || r + k >= rows) continue;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        const bool on = !(v[k][i] <= t[i]);  // NaN is on, and shows
        if (!on) v[k][i] = 0;
        of_latent += uint32_t{on} << 8 * i;
        of_rows += uint32_t{on} << 8 * k;
      }
      store_row(f + k * latents, v[k]);
    }
    z += kRows * latents, f += kRows * latents;
    if (!counts) continue;
    of_rows = warp_sum(of_rows);
    if (lane < kRows) of_row[warp][r + lane] = static_cast<int32_t>(of_rows >> 8 * lane & 0xff);
  }
  if (fired && inside)
    for (int i = 0; i < kWidth; ++i)
      if (const int32_t count = of_latent >> 8 * i & 0xff) atomicAdd(fired + column + i, count);
  if (!counts) return;
  __syncthreads();
  for (int r = threadIdx.x; r < rows; r += kThreads) {
    int32_t count = 0;
    for (int w = 0; w < kWarps; ++w) count += of_row[w][r];
    if (count) atomicAdd(counts + begin + r, count);
  }
}

// In place: what the sum of integers was, as f32.
__global__ void finish_counts_kernel(float* l0, const int32_t* counts, int64_t n) {
  const int64_t r = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (r < n) l0[r] = static_cast<float>(counts[r]);
}

// dbias, dtheta: of the one chunk that there is; or a row of partial sums for each chunk. df is read only where it is
// used, which for a sparse code is hardly anywhere.
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 3)
    jump_relu_backward_kernel(T* dz, float* dbias, float* dtheta, const float* df, const float* z, const float* theta,
                              const float* dl0, int64_t n, int64_t latents, int64_t chunk, float half, float scale) {
  const int64_t begin = int64_t(blockIdx.x) * chunk, rows = min(chunk, n - begin);
  const int64_t column = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  if (column >= latents) return;
  z += begin * latents + column, df += begin * latents + column, dz += begin * latents + column;
  dl0 += begin;

  float t[kWidth], sum_b[kWidth] = {}, sum_t[kWidth] = {};
  load_row(t, theta + column);
  for (int64_t r = 0; r < rows; r += kRows) {
    float v[kRows][kWidth] = {}, g[kRows][kWidth] = {};
#pragma unroll
    for (int k = 0; k < kRows; ++k)
      if (r + k < rows) load_row(v[k], z + k * latents);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      bool used = false;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) used |= v[k][i] > t[i] || fabsf(v[k][i] - t[i]) < half;
      if (used && r + k < rows) load_row(g[k], df + k * latents);
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (r + k >= rows) continue;
      const float penalty = dl0[k];
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        if (fabsf(v[k][i] - t[i]) < half) sum_t[i] += t[i] * g[k][i] + penalty;
        if (!(v[k][i] > t[i])) g[k][i] = 0;
        sum_b[i] += g[k][i];
      }
      store_row(dz + k * latents, g[k]);
    }
    z += kRows * latents, df += kRows * latents, dz += kRows * latents;
    dl0 += kRows;
  }
  if (gridDim.x == 1) {
    for (int i = 0; i < kWidth; ++i) dbias[column + i] += sum_b[i], dtheta[column + i] += scale * sum_t[i];
  } else {
    store_row(dbias + blockIdx.x * latents + column, sum_b);
    store_row(dtheta + blockIdx.x * latents + column, sum_t);
  }
}

// f(width) with the latents that a thread owns: 4 where rows are 16-byte aligned.
template <class F> void with_width(int64_t latents, F&& f) {
  if (latents % 4 == 0) f.template operator()<4>();
  else f.template operator()<1>();
}
int64_t stripes_of(int64_t latents, int width) { return (latents + kThreads * width - 1) / (kThreads * width); }

}  // namespace

void jump_relu(Context& ctx, Tensor f, Tensor z, Tensor theta, Tensor l0, Tensor fired) {
  const Range range("jump_relu");
  const int64_t n = z.dim[0], latents = z.dim[1];
  const cudaStream_t stream = ctx.cuda().stream;
  int32_t* counts = l0 ? reinterpret_cast<int32_t*>(l0.data<float>()) : nullptr;  // no float is there yet
  if (l0) CUDA_CHECK(cudaMemsetAsync(counts, 0, l0.bytes(), stream));
  dispatch_device_float(f.dtype, [&]<class T>() {
    with_width(latents, [&]<int kWidth>() {
      const int64_t stripes = stripes_of(latents, kWidth);
      const RowChunks chunks = row_chunks(n, stripes, 0, 0);
      launch(jump_relu_kernel<T, kWidth>, Grid(chunks.count, stripes), kThreads, 0, stream, device_data<T>(f),
             z.data<float>(), theta.data<float>(), counts, fired ? fired.data<int32_t>() : nullptr, n, latents,
             static_cast<int>(chunks.rows));
    });
  });
  if (l0) launch(finish_counts_kernel, (n + 255) / 256, 256, 0, stream, l0.data<float>(), counts, n);
}

void jump_relu_backward(Context& ctx, Tensor dz, Tensor dbias, Tensor dtheta, Tensor df, Tensor z, Tensor theta,
                        Tensor dl0, float bandwidth) {
  const Range range("jump_relu_backward");
  const int64_t n = z.dim[0], latents = z.dim[1];
  const float half = bandwidth / 2, scale = -1 / bandwidth;
  dispatch_device_float(dz.dtype, [&]<class T>() {
    with_width(latents, [&]<int kWidth>() {
      const int64_t stripes = stripes_of(latents, kWidth);
      const RowChunks chunks =
          row_chunks(n, stripes, 2 * sizeof(float) * static_cast<size_t>(latents), ctx.cuda().workspace_bytes);
      float *b = dbias.data<float>(), *t = dtheta.data<float>();
      if (chunks.count > 1) b = workspace<float>(ctx, 2 * chunks.count * latents), t = b + chunks.count * latents;
      launch(jump_relu_backward_kernel<T, kWidth>, Grid(chunks.count, stripes), kThreads, 0, ctx.cuda().stream,
             device_data<T>(dz), b, t, df.data<float>(), z.data<float>(), theta.data<float>(), dl0.data<float>(), n,
             latents, chunks.rows, half, scale);
      if (chunks.count == 1) return;
      sum_partials<float>(ctx, {dbias.data<float>(), b, chunks.count, latents, 1, true},
                          {dtheta.data<float>(), t, chunks.count, latents, scale, true});
    });
  });
}

}  // namespace gsae::cuda
