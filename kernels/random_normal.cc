#include "kernels/random_normal.h"

#include <cmath>

#include "kernels/bf16.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

void random_normal(Context& ctx, Tensor out, Random random, float scale) {
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), random_normal(ctx, out, random, scale));
}

void cpu::random_normal(Context&, Tensor out, Random random, float scale) {
  const int64_t n = out.size();
  dispatch_float(out.dtype, [&]<class T>() {
    T* o = out.data<T>();
    parallel_for((n + 1) / 2, 1 << 12, [&](int64_t begin, int64_t end) {
      for (int64_t pair = begin; pair < end; ++pair) {
        const auto [u, v] = uniforms_for_normal(random.words(static_cast<uint64_t>(pair)));
        const double radius = double(scale) * std::sqrt(-2 * std::log(double(u))), angle = 2 * M_PI * double(v);
        store(o + 2 * pair, static_cast<float>(radius * std::cos(angle)));
        if (2 * pair + 1 < n) store(o + 2 * pair + 1, static_cast<float>(radius * std::sin(angle)));
      }
    });
  });
}

}  // namespace gsae
