#include "kernels/adam.h"

#include <cmath>

#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

void check_operands(const char* op, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates) {
  CHECKF(v.size() == p.size() && g.size() == p.size(), "{}: parameter {}, moment {} and gradient {} differ in size", op,
         p, v, g);
  CHECKF(p.dtype == DType::kF32 && v.dtype == DType::kF32 && g.dtype == DType::kF32,
         "{}: parameter {}, moment {} and gradient {} must be f32", op, p, v, g);
  CHECKF(!copy || (copy.size() == p.size() && copy.dtype == DType::kBF16), "{}: copy {} must be {} in bf16", op, copy,
         p);
  CHECKF(rates.is({kRates}), "{}: rates {} must be ({})", op, rates, int{kRates});
}

}  // namespace

void adam(Context& ctx, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions o) {
  check_operands("adam", p, v, g, copy, rates);
  if (p.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), adam(ctx, p, v, g, copy, rates, o));
}

namespace {

struct Update {
  float lr, beta2, unbias, grad_scale, epsilon, lowest;

  Update(Tensor rates, AdamOptions o)
      : lr(o.rate_scale * rates.data<float>()[kLearningRate]),
        beta2(rates.data<float>()[kBeta2]),
        unbias(rates.data<float>()[kUnbias]),
        grad_scale(rates.data<float>()[kGradScale]),
        epsilon(o.epsilon),
        lowest(o.lowest) {}

  void operator()(float& p, float& v, float g) const {
    v = beta2 * v + (1 - beta2) * g * g;
    p = std::max(p - lr * g / (std::sqrt(v * unbias) + epsilon), lowest);  // in this order NaN stays NaN
  }
};

}  // namespace

void cpu::adam(Context&, Tensor p, Tensor v, Tensor g, Tensor copy, Tensor rates, AdamOptions o) {
  const Update update(rates, o);
  float *ps = p.data<float>(), *vs = v.data<float>();
  const float* gs = g.data<float>();
  BF16* cs = copy ? copy.data<BF16>() : nullptr;
  parallel_for(p.size(), 1 << 14, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) update(ps[i], vs[i], update.grad_scale * gs[i]);
    if (cs) gsae::convert(cs + begin, ps + begin, end - begin);
  });
}

}  // namespace gsae
