#include "kernels/embedding.h"

#include <atomic>

#include "kernels/checkf.h"
#include "kernels/device_fault.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void embedding(Context& ctx, Tensor x, Tensor table, Tensor tokens, float scale) {
  CHECKF(table.rank == 2, "embedding: table {} must be (V, d)", table);
  CHECKF(tokens.dtype == DType::kI32, "embedding: tokens {} must be i32", tokens);
  CHECKF(x.is({tokens.size(), table.dim[1]}) && x.dtype == DType::kF32, "embedding: x {} must be f32[{}, {}]", x,
         tokens.size(), table.dim[1]);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), embedding(ctx, x, table, tokens, scale));
}

namespace {

// Whether the row is finite: the largest exponent decides, without a branch.
template <class T> bool scale_row(float* out, const T* row, int64_t d, float scale) {
  uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t c = 0; c < d; ++c) {
    const float v = to_float(row[c]);
    largest = std::max(largest, std::bit_cast<uint32_t>(v) & 0x7fffffffu);
    out[c] = v * scale;
  }
  return largest < 0x7f800000u;
}

}  // namespace

void cpu::embedding(Context&, Tensor x, Tensor table, Tensor tokens, float scale) {
  const int64_t n = x.dim[0], d = x.dim[1], vocab = table.dim[0];
  const int32_t* t = tokens.data<int32_t>();
  for (int64_t r = 0; r < n; ++r)
    if (t[r] < 0 || t[r] >= vocab) throw Error(describe(DeviceFault::kTokenOutside, r, t[r], vocab));
  float* out = x.data<float>();
  dispatch_float(table.dtype, [&]<class T>() {
    const T* rows = table.data<T>();
    std::atomic<int64_t> damaged = n;  // the first such position, whichever thread meets it
    parallel_for(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        if (scale_row(out + r * d, rows + t[r] * d, d, scale)) continue;
        int64_t seen = damaged;
        while (seen > r && !damaged.compare_exchange_weak(seen, r)) {}
      }
    });
    if (damaged < n) throw Error(describe(DeviceFault::kEmbeddingNotFinite, damaged, t[damaged], vocab));
  });
}

}  // namespace gsae
