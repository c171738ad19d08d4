#include "kernels/random_normal.h"

#include "kernels/elementwise.cuh"

namespace gsae::cuda {
namespace {

template <class T> struct Normal {
  static constexpr int kStep = 4;  // two pairs
  T* out;
  Random random;
  float scale;

  // Both numbers of a pair.
  __device__ void pair(uint64_t index, float& even, float& odd) const {
    const auto uniforms = uniforms_for_normal(random.words(index));
    const float radius = scale * sqrtf(-2.0f * logf(uniforms[0]));
    float sine, cosine;
    sincospif(2.0f * uniforms[1], &sine, &cosine);
    even = radius * cosine;
    odd = radius * sine;
  }

  template <int N> __device__ void apply(int64_t i) const {
    float v[N];
    if constexpr (N == 1) {
      float even, odd;
      pair(static_cast<uint64_t>(i) / 2, even, odd);
      v[0] = i % 2 == 0 ? even : odd;
    } else {
      for (int k = 0; k < N; k += 2) pair(static_cast<uint64_t>(i + k) / 2, v[k], v[k + 1]);
    }
    store_row<N>(out + i, v);
  }
};

}  // namespace

void random_normal(Context& ctx, Tensor out, Random random, float scale) {
  const Range range("random_normal");
  dispatch_device_float(out.dtype, [&]<class T>() {
    launch_elementwise(ctx, Normal<T>{device_data<T>(out), random, scale}, out.size(), {out.ptr});
  });
}

}  // namespace gsae::cuda
