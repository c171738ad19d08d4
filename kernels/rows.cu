#include "kernels/rows.h"

#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;  // a warp per row

__device__ int64_t row_of_warp() { return int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; }

// The columns of a row, kWidth at a time, over the lanes of a warp.
template <int kWidth, class F> __device__ void for_columns(int64_t d, F&& f) {
#pragma unroll 4
  for (int64_t c = threadIdx.x % 32 * kWidth; c < d; c += 32 * kWidth) f(c);
}

template <int kWidth, class Out, class In>
__global__ void __launch_bounds__(kThreads) scatter_rows_kernel(Out* __restrict__ table, const In* __restrict__ rows,
                                                                const int32_t* index, int64_t n, int64_t d) {
  const int64_t r = row_of_warp();
  if (r >= n) return;
  const int64_t slot = index[r];
  if (slot < 0) return;
  for_columns<kWidth>(d, [&](int64_t c) {
    float v[kWidth];
    load_row(v, rows + r * d + c);
    store_row(table + slot * d + c, v);
  });
}

template <int kWidth, class Out, class In>
__global__ void __launch_bounds__(kThreads)
    scatter_rows_with_norms_kernel(Out* __restrict__ table, float* __restrict__ norms, const In* __restrict__ rows,
                                   const int32_t* index, int64_t n, int64_t d) {
  const int64_t r = row_of_warp();
  if (r >= n) return;
  const int64_t slot = index[r];
  float square = 0;
  if (slot >= 0)
    for_columns<kWidth>(d, [&](int64_t c) {
      float v[kWidth];
      load_row(v, rows + r * d + c);
      store_row(table + slot * d + c, v);
      for (int i = 0; i < kWidth; ++i) square += v[i] * v[i];
    });
  square = warp_sum(square);
  if (threadIdx.x % 32 == 0) norms[r] = sqrtf(square);
}

template <int kWidth, class In>
__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(float* __restrict__ out, const In* __restrict__ table, const int32_t* index, int64_t n,
                       int64_t d, float scale) {
  const int64_t r = row_of_warp();
  if (r >= n) return;
  const int64_t slot = index[r];
  for_columns<kWidth>(d, [&](int64_t c) {
    float v[kWidth];
    load_row(v, table + slot * d + c);
    for (int i = 0; i < kWidth; ++i) v[i] *= scale;
    store_row(out + r * d + c, v);
  });
}

template <int kWidth, class Out>
__global__ void __launch_bounds__(kThreads) subtract_bias_kernel(Out* __restrict__ out, const float* __restrict__ x,
                                                                 const float* __restrict__ bias, int64_t n, int64_t d) {
  const int64_t r = row_of_warp();
  if (r >= n) return;
  for_columns<kWidth>(d, [&](int64_t c) {
    float v[kWidth], b[kWidth];
    load_row(v, x + r * d + c);
    load_row(b, bias + c);
    for (int i = 0; i < kWidth; ++i) v[i] -= b[i];
    store_row(out + r * d + c, v);
  });
}

// f(width): as many elements of a row as a thread moves at once. Its widest access is 16 bytes.
template <class F> void with_width(int64_t d, bool both_narrow, F&& f) {
  if (both_narrow && d % 8 == 0) f.template operator()<8>();
  else if (d % 4 == 0) f.template operator()<4>();
  else f.template operator()<1>();
}

Grid warps(int64_t n, std::source_location where = std::source_location::current()) {
  return {(n + kWarps - 1) / kWarps, 1, 1, where};
}

}  // namespace

namespace {

// f<width, Out, In>(): how rows of these types are moved.
template <class F> void with_row_types(Tensor table, Tensor rows, F&& f) {
  dispatch_device_float(table.dtype, [&]<class Out>() {
    dispatch_device_float(rows.dtype, [&]<class In>() {
      with_width(rows.dim[1], sizeof(Out) + sizeof(In) == 4, [&]<int kWidth>() {
        if constexpr (kWidth <= 4 || sizeof(Out) + sizeof(In) == 4) f.template operator()<kWidth, Out, In>();
      });
    });
  });
}

}  // namespace

void scatter_rows(Context& ctx, Tensor table, Tensor rows, Tensor index) {
  const Range range("scatter_rows");
  with_row_types(table, rows, [&]<int kWidth, class Out, class In>() {
    launch(scatter_rows_kernel<kWidth, Out, In>, warps(rows.dim[0]), kThreads, 0, ctx.cuda().stream,
           device_data<Out>(table), device_data<In>(rows), index.data<int32_t>(), rows.dim[0], rows.dim[1]);
  });
}

void scatter_rows_with_norms(Context& ctx, Tensor table, Tensor norms, Tensor rows, Tensor index) {
  const Range range("scatter_rows_with_norms");
  with_row_types(table, rows, [&]<int kWidth, class Out, class In>() {
    launch(scatter_rows_with_norms_kernel<kWidth, Out, In>, warps(rows.dim[0]), kThreads, 0, ctx.cuda().stream,
           device_data<Out>(table), norms.data<float>(), device_data<In>(rows), index.data<int32_t>(), rows.dim[0],
           rows.dim[1]);
  });
}

void gather_rows(Context& ctx, Tensor out, Tensor table, Tensor index, float scale) {
  const Range range("gather_rows");
  const int64_t n = out.dim[0], d = out.dim[1];
  dispatch_device_float(table.dtype, [&]<class In>() {
    with_width(d, false, [&]<int kWidth>() {
      if constexpr (kWidth <= 4)
        launch(gather_rows_kernel<kWidth, In>, warps(n), kThreads, 0, ctx.cuda().stream, out.data<float>(),
               device_data<In>(table), index.data<int32_t>(), n, d, scale);
    });
  });
}

void subtract_bias(Context& ctx, Tensor out, Tensor x, Tensor bias) {
  const Range range("subtract_bias");
  const int64_t n = x.dim[0], d = x.dim[1];
  dispatch_device_float(out.dtype, [&]<class Out>() {
    with_width(d, false, [&]<int kWidth>() {
      if constexpr (kWidth <= 4)
        launch(subtract_bias_kernel<kWidth, Out>, warps(n), kThreads, 0, ctx.cuda().stream, device_data<Out>(out),
               x.data<float>(), bias.data<float>(), n, d);
    });
  });
}

}  // namespace gsae::cuda
