#include "kernels/elementwise.h"

#include "kernels/elementwise.cuh"

namespace gsae::cuda {
namespace {

struct Subtract {
  static constexpr int kStep = 4;
  float* a;
  const float* b;

  template <int N> __device__ void apply(int64_t i) const {
    float x[N], y[N];
    load_row<N>(x, a + i);
    load_row<N>(y, b + i);
    for (int k = 0; k < N; ++k) x[k] -= y[k];
    store_row<N>(a + i, x);
  }
};

struct Multiply {
  static constexpr int kStep = 4;
  float* a;
  float scale;

  template <int N> __device__ void apply(int64_t i) const {
    float x[N];
    load_row<N>(x, a + i);
    for (int k = 0; k < N; ++k) x[k] *= scale;
    store_row<N>(a + i, x);
  }
};

}  // namespace

void fill_zero(Context& ctx, Tensor t) {
  const Range range("fill_zero");
  CUDA_CHECK(cudaMemsetAsync(t.ptr, 0, t.bytes(), ctx.cuda().stream));
}

void subtract(Context& ctx, Tensor a, Tensor b) {
  const Range range("subtract");
  launch_elementwise(ctx, Subtract{a.data<float>(), b.data<float>()}, a.size(), {a.ptr, b.ptr});
}

void multiply(Context& ctx, Tensor a, float scale) {
  const Range range("multiply");
  launch_elementwise(ctx, Multiply{a.data<float>(), scale}, a.size(), {a.ptr});
}

}  // namespace gsae::cuda
