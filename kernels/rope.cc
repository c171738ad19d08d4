#include "kernels/rope.h"

#include <cmath>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void rope_table(Context& ctx, Tensor table, double theta) {
  CHECKF(table.rank == 3 && table.dim[1] == 2 && table.dtype == DType::kF32,
         "rope_table: table {} must be f32 (T, 2, dh/2)", table);
  CHECKF(theta > 0, "rope_table: theta {} must be positive", theta);
  if (table.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), rope_table(ctx, table, theta));
}

void rope_split(Context& ctx, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table) {
  CHECKF(q.rank == 4 && q.dim[3] % 2 == 0, "rope_split: q {} must be (B, Hq, T, dh) with dh even", q);
  const int64_t B = q.dim[0], T = q.dim[2], dh = q.dim[3], kv_heads = k.dim[1];
  CHECKF(k.is({B, kv_heads, T, dh}) && v.is({B, kv_heads, T, dh}), "rope_split: k {} and v {} must match q {}", k, v,
         q);
  CHECKF(qkv.is({B * T, (q.dim[1] + 2 * kv_heads) * dh}), "rope_split: qkv {} must be ({}, {})", qkv, B * T,
         (q.dim[1] + 2 * kv_heads) * dh);
  CHECKF(q.dtype == qkv.dtype && k.dtype == qkv.dtype && v.dtype == qkv.dtype,
         "rope_split: q {}, k {} and v {} must have the dtype of qkv {}", q, k, v, qkv);
  CHECKF(
      table.dtype == DType::kF32 && table.rank == 3 && table.dim[0] >= T && table.dim[1] == 2 && table.dim[2] == dh / 2,
      "rope_split: table {} must be f32 (at least {}, 2, {})", table, T, dh / 2);
  if (qkv.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), rope_split(ctx, q, k, v, qkv, table));
}

void cpu::rope_table(Context&, Tensor table, double theta) {
  const int64_t T = table.dim[0], half = table.dim[2];
  float* out = table.data<float>();
  parallel_for(T, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < half; ++i) {
      const float exponent = static_cast<float>(2 * i) / static_cast<float>(2 * half);
      const float frequency = 1.0f / static_cast<float>(std::pow(static_cast<float>(theta), double(exponent)));
      for (int64_t t = begin; t < end; ++t) {
        const float angle = static_cast<float>(t) * frequency;
        out[(2 * t) * half + i] = static_cast<float>(std::cos(double(angle)));
        out[(2 * t + 1) * half + i] = static_cast<float>(std::sin(double(angle)));
      }
    }
  });
}

namespace {

template <class E> void split(Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table) {
  const int64_t B = q.dim[0], heads = q.dim[1], T = q.dim[2], dh = q.dim[3], kv_heads = k.dim[1], half = dh / 2;
  const E* in = qkv.data<E>();
  const float* angles = table.data<float>();
  E *qs = q.data<E>(), *ks = k.data<E>(), *vs = v.data<E>();
  parallel_for(B * T, 32, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t b = r / T, t = r % T;
      const float *cosine = angles + 2 * t * half, *sine = cosine + half;
      const E* from = in + r * (heads + 2 * kv_heads) * dh;
      for (int64_t h = 0; h < heads + kv_heads; ++h, from += dh) {
        E* to = h < heads ? qs + ((b * heads + h) * T + t) * dh : ks + ((b * kv_heads + h - heads) * T + t) * dh;
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          const float x = to_float(from[i]), y = to_float(from[half + i]);
          store(to + i, x * cosine[i] - y * sine[i]);
          store(to + half + i, y * cosine[i] + x * sine[i]);
        }
      }
      for (int64_t h = 0; h < kv_heads; ++h, from += dh) std::copy_n(from, dh, vs + ((b * kv_heads + h) * T + t) * dh);
    }
  });
}

}  // namespace

void cpu::rope_split(Context&, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table) {
  dispatch_float(qkv.dtype, [&]<class E>() { split<E>(q, k, v, qkv, table); });
}

}  // namespace gsae
