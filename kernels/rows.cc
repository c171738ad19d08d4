#include "kernels/rows.h"

#include <cmath>

#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

void check_scatter(Tensor table, Tensor rows, Tensor index) {
  CHECKF(table.rank == 2 && rows.rank == 2 && table.dim[1] == rows.dim[1], "scatter_rows: table {} and rows {}", table,
         rows);
  CHECKF(index.is({rows.dim[0]}) && index.dtype == DType::kI32, "scatter_rows: index {} must be i32[{}]", index,
         rows.dim[0]);
}

}  // namespace

void scatter_rows(Context& ctx, Tensor table, Tensor rows, Tensor index) {
  check_scatter(table, rows, index);
  if (rows.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), scatter_rows(ctx, table, rows, index));
}

void scatter_rows_with_norms(Context& ctx, Tensor table, Tensor norms, Tensor rows, Tensor index) {
  check_scatter(table, rows, index);
  CHECKF(norms.is({rows.dim[0]}) && norms.dtype == DType::kF32, "scatter_rows_with_norms: norms {} must be f32[{}]",
         norms, rows.dim[0]);
  if (rows.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), scatter_rows_with_norms(ctx, table, norms, rows, index));
}

void gather_rows(Context& ctx, Tensor out, Tensor table, Tensor index, float scale) {
  CHECKF(table.rank == 2 && index.rank == 1 && index.dtype == DType::kI32, "gather_rows: table {} and index {}", table,
         index);
  CHECKF(out.is({index.dim[0], table.dim[1]}) && out.dtype == DType::kF32, "gather_rows: out {} must be f32[{}, {}]",
         out, index.dim[0], table.dim[1]);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), gather_rows(ctx, out, table, index, scale));
}

void subtract_bias(Context& ctx, Tensor out, Tensor x, Tensor bias) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32 && out.is({x.dim[0], x.dim[1]}) && bias.is({x.dim[1]}),
         "subtract_bias: out {}, x {} and bias {} do not fit", out, x, bias);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), subtract_bias(ctx, out, x, bias));
}

namespace {

constexpr int64_t kGrain = 64;  // rows

void check_slots(const char* op, Tensor index, int64_t lowest, int64_t slots) {
  const int32_t* at = index.data<int32_t>();
  for (int64_t r = 0; r < index.dim[0]; ++r)
    CHECKF(at[r] >= lowest && at[r] < slots, "{}: index[{}] = {} is outside [{}, {})", op, r, at[r], lowest, slots);
}

}  // namespace

namespace {

// seen(r, row): of each row, in f32 or bf16, after it has been moved.
template <class Seen> void scatter(Tensor table, Tensor rows, Tensor index, const Seen& seen) {
  check_slots("scatter_rows", index, -1, table.dim[0]);
  const int64_t d = table.dim[1];
  const int32_t* at = index.data<int32_t>();
  dispatch_float(table.dtype, [&]<class Out>() {
    dispatch_float(rows.dtype, [&]<class In>() {
      Out* out = table.data<Out>();
      const In* in = rows.data<In>();
      parallel_for(rows.dim[0], kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          if (at[r] >= 0) gsae::convert(out + at[r] * d, in + r * d, d);
          seen(r, at[r] >= 0 ? in + r * d : nullptr);
        }
      });
    });
  });
}

}  // namespace

void cpu::scatter_rows(Context&, Tensor table, Tensor rows, Tensor index) {
  scatter(table, rows, index, [](int64_t, const auto*) {});
}

void cpu::scatter_rows_with_norms(Context&, Tensor table, Tensor norms, Tensor rows, Tensor index) {
  float* out = norms.data<float>();
  const int64_t d = rows.dim[1];
  scatter(table, rows, index, [out, d](int64_t r, const auto* row) {
    float square = 0;
    if (row) {
#pragma omp simd reduction(+ : square)
      for (int64_t c = 0; c < d; ++c) square += to_float(row[c]) * to_float(row[c]);
    }
    out[r] = std::sqrt(square);
  });
}

void cpu::gather_rows(Context&, Tensor out, Tensor table, Tensor index, float scale) {
  check_slots("gather_rows", index, 0, table.dim[0]);
  const int64_t d = table.dim[1];
  const int32_t* at = index.data<int32_t>();
  float* o = out.data<float>();
  dispatch_float(table.dtype, [&]<class In>() {
    const In* in = table.data<In>();
    parallel_for(out.dim[0], kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const In* from = in + at[r] * d;
        float* to = o + r * d;
#pragma omp simd
        for (int64_t c = 0; c < d; ++c) to[c] = scale * to_float(from[c]);
      }
    });
  });
}

void cpu::subtract_bias(Context&, Tensor out, Tensor x, Tensor bias) {
  const int64_t d = x.dim[1];
  const float *in = x.data<float>(), *b = bias.data<float>();
  dispatch_float(out.dtype, [&]<class T>() {
    T* o = out.data<T>();
    parallel_for(x.dim[0], kGrain, [&](int64_t begin, int64_t end) {
      const float* bias_of = b;  // captured pointers are read anew for every element, by gathers
      for (int64_t r = begin; r < end; ++r) {
        T* to = o + r * d;
        const float* from = in + r * d;
#pragma omp simd
        for (int64_t c = 0; c < d; ++c) store(to + c, from[c] - bias_of[c]);
      }
    });
  });
}

}  // namespace gsae
