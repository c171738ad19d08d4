#include "kernels/reconstruction.h"

#include "kernels/launch.h"
#include "kernels/partial_sums.cuh"
#include "kernels/reduce.cuh"
#include "kernels/row_chunks.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kRows = 4;  // that a thread has under way at once

// A block owns a chunk of rows (blockIdx.x) and a stripe of kThreads * kWidth columns (blockIdx.y), a thread kWidth
// consecutive columns of it. What it leaves: the chunk's sum of each column, the stripe's sum of squares of each row.
//   column_sums (chunks, d);  row_sums (stripes, n)
template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads)
    reconstruction_error_kernel(T* dx, float* x_hat, const float* bias, const float* x, float* column_sums,
                                float* row_sums, int64_t n, int64_t d, int chunk, float scale) {
  __shared__ float of_row[kWarps][RowChunks::kMostRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = int64_t(blockIdx.x) * chunk;
  const int rows = static_cast<int>(min(int64_t{chunk}, n - begin));
  const int64_t column = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * kWidth;
  const bool inside = column < d;  // all kWidth are, or none
  const bool in_place = static_cast<const void*>(dx) == x_hat;
  x_hat += begin * d + column, x += begin * d + column, dx += begin * d + column;

  float b[kWidth] = {}, sum[kWidth] = {};
  if (inside) load_row(b, bias + column);
  for (int r = 0; r < rows; r += kRows) {
    float e[kRows][kWidth] = {}, v[kRows][kWidth] = {};
#pragma unroll
    for (int k = 0; k < kRows; ++k)
      if (inside && r + k < rows) {
        load_row(e[k], x_hat + k * d);
        load_row(v[k], x + k * d);
      }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      float square = 0;
      if (inside && r + k < rows) {
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          e[k][i] += b[i] - v[k][i];
          square += e[k][i] * e[k][i];
          v[k][i] = scale * e[k][i];
          sum[i] += v[k][i];
        }
        if (!in_place) store_row(x_hat + k * d, e[k]);
        store_row(dx + k * d, v[k]);
      }
      square = warp_sum(square);
      if (lane == 0) of_row[warp][r + k] = square;
    }
    x_hat += kRows * d, x += kRows * d, dx += kRows * d;
  }
  if (inside) store_row(column_sums + blockIdx.x * d + column, sum);
  __syncthreads();
  for (int r = threadIdx.x; r < rows; r += kThreads) {
    float square = 0;
    for (int w = 0; w < kWarps; ++w) square += of_row[w][r];
    row_sums[blockIdx.y * n + begin + r] = square;
  }
}

template <class T, int kWidth>
void reconstruction_error(Context& ctx, T* dx, float* error, float* dbias, float* x_hat, const float* bias,
                          const float* x, int64_t n, int64_t d, float scale) {
  const int64_t stripes = (d + kThreads * kWidth - 1) / (kThreads * kWidth);
  // Half of the workspace for the rows' sums, half for the columns'. More rows than fit (some hundred thousand) go in
  // several bands.
  const size_t half = ctx.cuda().workspace_bytes / 2;
  const int64_t floats = static_cast<int64_t>(half / sizeof(float));
  const int64_t most = std::min(floats / stripes, RowChunks::kMostRows * (floats / d));
  CHECK(most > 0, "reconstruction_error: rows are too long for the workspace");
  for (int64_t begin = 0; begin < n; begin += most) {
    const int64_t rows = std::min(n - begin, most), at = begin * d;
    const RowChunks chunks = row_chunks(rows, stripes, sizeof(float) * static_cast<size_t>(d), half);
    float* column_sums = workspace<float>(ctx, chunks.count * d + stripes * rows);
    float* row_sums = column_sums + chunks.count * d;
    launch(reconstruction_error_kernel<T, kWidth>, Grid(chunks.count, stripes), kThreads, 0, ctx.cuda().stream, dx + at,
           x_hat + at, bias, x + at, column_sums, row_sums, rows, d, static_cast<int>(chunks.rows), scale);
    sum_partials<float>(ctx, {dbias, column_sums, chunks.count, d, 1, true},
                        {error + begin, row_sums, stripes, rows, 1, false});
  }
}

}  // namespace

void reconstruction_error(Context& ctx, Tensor dx, Tensor error, Tensor dbias, Tensor x_hat, Tensor bias, Tensor x,
                          float scale) {
  const Range range("reconstruction_error");
  const int64_t n = x.dim[0], d = x.dim[1];
  dispatch_device_float(dx.dtype, [&]<class T>() {
    (d % 4 == 0 ? reconstruction_error<T, 4>
                : reconstruction_error<T, 1>)(ctx, device_data<T>(dx), error.data<float>(), dbias.data<float>(),
                                              x_hat.data<float>(), bias.data<float>(), x.data<float>(), n, d, scale);
  });
}

}  // namespace gsae::cuda
