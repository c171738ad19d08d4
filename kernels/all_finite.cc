#include "kernels/all_finite.h"

#include <atomic>

#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

bool all_finite(Context& ctx, Tensor x) {
  if (x.size() == 0) return true;
  return GSAE_DISPATCH(ctx.device(), all_finite(ctx, x));
}

bool cpu::all_finite(Context&, Tensor x) {
  std::atomic<bool> finite = true;
  dispatch_float(x.dtype, [&]<class T>() {
    const T* v = x.data<T>();
    parallel_for(x.size(), 1 << 15, [&](int64_t begin, int64_t end) {
      const T* value = v;    // a captured pointer is read anew for every element, by gathers
      uint32_t largest = 0;  // the largest exponent decides, without a branch
#pragma omp simd reduction(max : largest)
      for (int64_t i = begin; i < end; ++i)
        largest = std::max(largest, std::bit_cast<uint32_t>(to_float(value[i])) & 0x7fffffffu);
      if (largest >= 0x7f800000u) finite = false;
    });
  });
  return finite;
}

}  // namespace gsae
