#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/bf16.h"
#include "kernels/parallel.h"

// Sums over rows that lie anywhere: what the CPU code of the sparse step is made of.

namespace gsae {

constexpr int kRowsAtOnce = 4;  // of those that are gathered, for each pass over what stays in the cache

// Asks for a row's first bytes; from there on the processor sees a stream.
template <class T> void prefetch_row(const T* row, int64_t d) {
  constexpr int64_t kAhead = 512, kLine = 64;
  const auto* bytes = reinterpret_cast<const char*>(row);
  const int64_t size = std::min(kAhead, d * static_cast<int64_t>(sizeof(T)));
  for (int64_t at = 0; at < size; at += kLine) __builtin_prefetch(bytes + at);
}

template <class T> void prefetch_rows(const T* const* rows, int begin, int count, int64_t d) {
  for (int k = begin; k < std::min(count, begin + kRowsAtOnce); ++k) prefetch_row(rows[k], d);
}

// out += weight[0] rows[0] + weight[1] rows[1] + ..., in this order for each element.
//   out (d);  weight (count);  rows (count) pointers to (d)
template <class T> void add_rows(float* out, const float* weight, const T* const* rows, int count, int64_t d) {
  int k = 0;
  for (; k + kRowsAtOnce <= count; k += kRowsAtOnce) {
    prefetch_rows(rows, k + kRowsAtOnce, count, d);
    const T *r0 = rows[k], *r1 = rows[k + 1], *r2 = rows[k + 2], *r3 = rows[k + 3];
    const float w0 = weight[k], w1 = weight[k + 1], w2 = weight[k + 2], w3 = weight[k + 3];
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) {
      float sum = out[c] + w0 * to_float(r0[c]);
      sum += w1 * to_float(r1[c]);
      sum += w2 * to_float(r2[c]);
      out[c] = sum + w3 * to_float(r3[c]);
    }
  }
  for (; k < count; ++k) {
    const T* row = rows[k];
    const float w = weight[k];
#pragma omp simd
    for (int64_t c = 0; c < d; ++c) out[c] += w * to_float(row[c]);
  }
}

// dot[k] = x . rows[k]
template <class T> void dot_rows(float* dot, const float* x, const T* const* rows, int count, int64_t d) {
  int k = 0;
  for (; k + kRowsAtOnce <= count; k += kRowsAtOnce) {
    prefetch_rows(rows, k + kRowsAtOnce, count, d);
    const T *r0 = rows[k], *r1 = rows[k + 1], *r2 = rows[k + 2], *r3 = rows[k + 3];
    float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#pragma omp simd reduction(+ : s0, s1, s2, s3)
    for (int64_t c = 0; c < d; ++c) {
      s0 += x[c] * to_float(r0[c]);
      s1 += x[c] * to_float(r1[c]);
      s2 += x[c] * to_float(r2[c]);
      s3 += x[c] * to_float(r3[c]);
    }
    dot[k] = s0, dot[k + 1] = s1, dot[k + 2] = s2, dot[k + 3] = s3;
  }
  for (; k < count; ++k) {
    const T* row = rows[k];
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < d; ++c) sum += x[c] * to_float(row[c]);
    dot[k] = sum;
  }
}

// out += partial[0] + partial[1] + ...: what ranges have left, `stride` elements apart.
//   out (d);  partial (count, stride) of which the first d elements count
inline void add_partials(float* out, const float* partial, int64_t count, int64_t stride, int64_t d) {
  constexpr int64_t kStripe = 64;
  parallel_for(d, kStripe, [=](int64_t begin, int64_t end) {
    float sum[kStripe] = {};
    for (int64_t k = 0; k < count; ++k) {
      const float* part = partial + k * stride + begin;
#pragma omp simd
      for (int64_t c = 0; c < end - begin; ++c) sum[c] += part[c];
    }
    for (int64_t c = begin; c < end; ++c) out[c] += sum[c - begin];
  });
}

}  // namespace gsae
