#include "kernels/device_math.cuh"
#include "kernels/elementwise.cuh"
#include "kernels/softcap.h"

namespace gsae::cuda {
namespace {

struct Softcap {
  static constexpr int kStep = 4;
  float* x;
  float cap, inverse_cap;

  template <int N> __device__ void apply(int64_t i) const {
    float v[N];
    load_row<N>(v, x + i);
    for (int k = 0; k < N; ++k) v[k] = softcapped(v[k], cap, inverse_cap);
    store_row<N>(x + i, v);
  }
};

}  // namespace

void softcap(Context& ctx, Tensor x, float cap) {
  const Range range("softcap");
  launch_elementwise(ctx, Softcap{x.data<float>(), cap, 1 / cap}, x.size(), {x.ptr});
}

}  // namespace gsae::cuda
