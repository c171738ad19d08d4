#include "kernels/convert.h"

#include "kernels/elementwise.cuh"

namespace gsae::cuda {
namespace {

template <class Out, class In> struct Convert {
  static constexpr int kStep = 16 / sizeof(In);
  Out* out;
  const In* x;

  template <int N> __device__ void apply(int64_t i) const {
    float v[N];
    load_row<N>(v, x + i);
    store_row<N>(out + i, v);
  }
};

}  // namespace

void convert(Context& ctx, Tensor out, Tensor x) {
  const Range range("convert");
  dispatch_device_float(out.dtype, [&]<class Out>() {
    dispatch_device_float(x.dtype, [&]<class In>() {
      if constexpr (!std::is_same_v<Out, In>)
        launch_elementwise(ctx, Convert<Out, In>{device_data<Out>(out), device_data<In>(x)}, x.size(),
                           {out.ptr, x.ptr});
      else if (out.ptr != x.ptr)
        CUDA_CHECK(cudaMemcpyAsync(out.ptr, x.ptr, x.bytes(), cudaMemcpyDefault, ctx.cuda().stream));
    });
  });
}

}  // namespace gsae::cuda
