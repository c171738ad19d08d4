#include "kernels/rope.h"

#include "kernels/launch.h"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 256;

// One thread per angle. Rounded where the CPU rounds.
__global__ void __launch_bounds__(kThreads) rope_table_kernel(float* table, int64_t T, int64_t half, float theta) {
  const int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= T * half) return;
  const int64_t t = at / half, i = at % half;
  const float exponent = static_cast<float>(2 * i) / static_cast<float>(2 * half);
  const float frequency = 1.0f / static_cast<float>(pow(double(theta), double(exponent)));
  const float angle = static_cast<float>(t) * frequency;
  table[2 * t * half + i] = static_cast<float>(cos(double(angle)));
  table[(2 * t + 1) * half + i] = static_cast<float>(sin(double(angle)));
}

// Heads of dh = 2 * half elements, and where they go.
struct Heads {
  int64_t q, kv, T;
  int half;
};

// One block per row of qkv. A thread takes kStep elements of the first half of a head and their partners in the second.
template <class T, int kStep>
__global__ void __launch_bounds__(kThreads)
    rope_split_kernel(T* q, T* k, T* v, const T* __restrict__ qkv, const float* __restrict__ table, Heads heads) {
  const int64_t b = blockIdx.x / heads.T, t = blockIdx.x % heads.T;
  const int half = heads.half, packets = half / kStep, all = static_cast<int>(heads.q + 2 * heads.kv);
  const T* row = qkv + int64_t(blockIdx.x) * all * 2 * half;
  const float *cosine = table + 2 * t * half, *sine = cosine + half;
  for (int p = threadIdx.x; p < all * packets; p += kThreads) {
    const int h = p / packets, i = p % packets * kStep;
    float x[kStep], y[kStep];
    load_row<kStep>(x, row + int64_t(h) * 2 * half + i);
    load_row<kStep>(y, row + int64_t(h) * 2 * half + half + i);
    T* to;
    if (h < heads.q + heads.kv) {
      float c[kStep], s[kStep];
      load_row<kStep>(c, cosine + i);
      load_row<kStep>(s, sine + i);
      for (int j = 0; j < kStep; ++j) {
        const float first = x[j], second = y[j];
        x[j] = first * c[j] - second * s[j];
        y[j] = second * c[j] + first * s[j];
      }
      to = h < heads.q ? q + ((b * heads.q + h) * heads.T + t) * 2 * half
                       : k + ((b * heads.kv + h - heads.q) * heads.T + t) * 2 * half;
    } else {
      to = v + ((b * heads.kv + h - heads.q - heads.kv) * heads.T + t) * 2 * half;
    }
    store_row<kStep>(to + i, x);
    store_row<kStep>(to + half + i, y);
  }
}

}  // namespace

void rope_table(Context& ctx, Tensor table, double theta) {
  const Range range("rope_table");
  const int64_t T = table.dim[0], half = table.dim[2];
  launch(rope_table_kernel, (T * half + kThreads - 1) / kThreads, kThreads, 0, ctx.cuda().stream, table.data<float>(),
         T, half, static_cast<float>(theta));
}

void rope_split(Context& ctx, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table) {
  const Range range("rope_split");
  const Heads heads{q.dim[1], k.dim[1], q.dim[2], static_cast<int>(q.dim[3] / 2)};
  dispatch_device_float(qkv.dtype, [&]<class T>() {
    constexpr int kVector = 16 / sizeof(T);
    const bool vector = heads.half % kVector == 0 && aligned(16, {q.ptr, k.ptr, v.ptr, qkv.ptr, table.ptr});
    launch(vector ? rope_split_kernel<T, kVector> : rope_split_kernel<T, 1>, qkv.dim[0], kThreads, 0, ctx.cuda().stream,
           device_data<T>(q), device_data<T>(k), device_data<T>(v), device_data<T>(qkv), table.data<float>(), heads);
  });
}

}  // namespace gsae::cuda
