#include "kernels/sparse_decode.h"

#include <algorithm>

#include "kernels/checkf.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/row_sums.h"

namespace gsae {

void sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& entries, Tensor x,
                   Tensor W_dec, Tensor bias, Tensor theta, float scale) {
  CHECKF(x.rank == 2 && x.dtype == DType::kF32, "sparse_decode: x {} must be f32 (B, d)", x);
  const int64_t n = x.dim[0], d = x.dim[1];
  CHECKF(dx.is({n, d}), "sparse_decode: dx {} must match x {}", dx, x);
  CHECKF(error.is({n}) && l0.is({n}), "sparse_decode: error {} and l0 {} must be ({})", error, l0, n);
  CHECKF(dbias.is({d}) && bias.is({d}), "sparse_decode: dbias {} and bias {} must be ({})", dbias, bias, d);
  CHECKF(W_dec.rank == 2 && W_dec.dim[1] == d && W_dec.dtype == dx.dtype,
         "sparse_decode: W_dec {} must be (F, {}) in the dtype of dx {}", W_dec, d, dx);
  CHECKF(theta.is({W_dec.dim[0]}), "sparse_decode: theta {} must match W_dec {}", theta, W_dec);
  CHECKF(entries.batch() == n && entries.latents() == W_dec.dim[0],
         "sparse_decode: entries of {} rows and {} latents for x {} and W_dec {}", entries.batch(), entries.latents(),
         x, W_dec);
  if (x.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), sparse_decode(ctx, dx, error, l0, dbias, entries, x, W_dec, bias, theta, scale));
}

namespace {

constexpr int64_t kRows = 16;  // of a range, unless their partial sums do not fit
constexpr int kStage = 64;     // entries that are looked up before their rows are read
template <class T> struct Rows {
  const int32_t *row_begin, *latent, *place;
  const float *z, *theta;
  float* df;
  const T* W_dec;
  int64_t d;

  // out (d) = x_hat[r] without the bias; returns how many latents are on.
  int64_t decode(float* out, int64_t r) const {
    std::fill_n(out, d, 0.0f);
    int64_t on = 0;
    const T* rows[kStage];
    float weight[kStage];
    for (int64_t k = row_begin[r], end = row_begin[r + 1]; k < end;) {
      int count = 0;
      for (; k < end && count < kStage; ++k) {
        const int64_t i = latent[k];
        const float value = z[place[k]];
        if (value <= theta[i]) continue;  // NaN is on, and shows
        rows[count] = W_dec + i * d;
        T rounded;
        store(&rounded, value);
        weight[count++] = to_float(rounded);
      }
      on += count;
      add_rows(out, weight, rows, count, d);
    }
    return on;
  }

  // df = dx . W_dec[i] for all of r's entries; dx (d)
  void backward(const float* dx, int64_t r) const {
    const T* rows[kStage];
    float dot[kStage];
    for (int64_t k = row_begin[r], end = row_begin[r + 1]; k < end; k += kStage) {
      const int count = static_cast<int>(std::min<int64_t>(kStage, end - k));
      for (int j = 0; j < count; ++j) rows[j] = W_dec + latent[k + j] * d;
      dot_rows(dot, dx, rows, count, d);
      for (int j = 0; j < count; ++j) df[place[k + j]] = dot[j];
    }
  }
};

// sums (d) += e's gradient, which dx (d) and row (d) get as T rounds it; row holds x_hat before. Returns |e|^2.
template <class T>
float residual(T* dx, float* row, float* sums, const float* bias, const float* x, float scale, int64_t d) {
  float square = 0;
#pragma omp simd reduction(+ : square)
  for (int64_t c = 0; c < d; ++c) {
    const float e = row[c] + bias[c] - x[c], g = scale * e;
    square += e * e;
    sums[c] += g;
    store(dx + c, g);
    row[c] = to_float(dx[c]);
  }
  return square;
}

}  // namespace

void cpu::sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& e, Tensor x,
                        Tensor W_dec, Tensor bias, Tensor theta, float scale) {
  const int64_t n = x.dim[0], d = x.dim[1];
  // of each range of rows a sum for dbias, and the row under way
  const auto most = static_cast<int64_t>(Context::kWorkspaceBytes / (2 * sizeof(float))) / d;
  CHECK(most > 0, "sparse_decode: rows are too long for the workspace");
  const int64_t rows = std::max(kRows, (n + most - 1) / most), ranges = (n + rows - 1) / rows;
  auto* scratch = reinterpret_cast<float*>(ctx.cpu().workspace.data());
  const float *in = x.data<float>(), *b = bias.data<float>();
  float *squares = error.data<float>(), *counts = l0.data<float>();
  dispatch_float(dx.dtype, [&]<class T>() {
    const Rows<T> lists{
        e.row_begin.data<int32_t>(), e.latent.data<int32_t>(), e.place.data<int32_t>(), e.z.data<float>(),
        theta.data<float>(),         e.df.data<float>(),       W_dec.data<T>(),         d};
    T* out = dx.data<T>();
    parallel_for(n, rows, [&](int64_t begin, int64_t end) {
      float *sums = scratch + begin / rows * 2 * d, *row = sums + d;
      std::fill_n(sums, d, 0.0f);
      for (int64_t r = begin; r < end; ++r) {
        counts[r] = static_cast<float>(lists.decode(row, r));
        squares[r] = residual(out + r * d, row, sums, b, in + r * d, scale, d);
        lists.backward(row, r);
      }
    });
  });
  add_partials(dbias.data<float>(), scratch, ranges, 2 * d, d);
}

}  // namespace gsae
