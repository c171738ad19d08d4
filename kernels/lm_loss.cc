#include "kernels/lm_loss.h"

#include <cmath>
#include <limits>

#include "kernels/checkf.h"
#include "kernels/device_fault.h"
#include "kernels/dispatch.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"
#include "kernels/vector_math.h"

namespace gsae {

void lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch) {
  CHECKF(h.rank == 2 && table.rank == 2 && h.dim[1] == table.dim[1] && table.size() > 0,
         "lm_loss: h {} must be (n, d) and table {} (V, d)", h, table);
  const int64_t n = h.dim[0];
  CHECKF(nll.is({n}) && nll.dtype == DType::kF32, "lm_loss: nll {} must be f32[{}]", nll, n);
  CHECKF(targets.is({n}) && targets.dtype == DType::kI32, "lm_loss: targets {} must be i32[{}]", targets, n);
  CHECKF(cap >= 0, "lm_loss: cap {} must be positive, or 0 for none", cap);
  CHECKF(scratch.rank == 2 && scratch.dtype == DType::kF32 && scratch.size() > 0,
         "lm_loss: scratch {} must be f32 (rows, columns)", scratch);
  if (n == 0) return;
  GSAE_DISPATCH(ctx.device(), lm_loss(ctx, nll, h, table, targets, cap, scratch));
}

namespace {

// Of one row, over the chunks seen so far: log sum exp is max + log(sum).
struct RunningSoftmax {
  float max = std::numeric_limits<float>::lowest();
  float target = 0;  // the target's logit
  double sum = 0;    // of exp(l - max)
};

// Takes in the next logits of a row; softcaps them in place.
void add(RunningSoftmax& s, float* l, int64_t count, float cap) {
  float max = s.max;
  if (cap > 0) {
    const float inverse = 1 / cap;
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < count; ++j) {
      l[j] = softcapped(l[j], cap, inverse);
      max = l[j] > max ? l[j] : max;
    }
  } else {
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < count; ++j) max = l[j] > max ? l[j] : max;
  }
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < count; ++j) sum += static_cast<double>(vector_exp(l[j] - max));
  s.sum = s.sum * std::exp(static_cast<double>(s.max) - max) + sum;
  s.max = max;
}

}  // namespace

void cpu::lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch) {
  const int64_t n = h.dim[0], vocabulary = table.dim[0];
  const int32_t* target = targets.data<int32_t>();
  for (int64_t r = 0; r < n; ++r)
    if (target[r] < -1 || target[r] >= vocabulary)
      throw Error(describe(DeviceFault::kTargetOutside, r, target[r], vocabulary));

  constexpr int64_t kMaxRows = 1024;  // the running state of a block lives on the stack
  const int64_t rows = std::min(scratch.dim[0], kMaxRows);
  const int64_t columns = std::min(scratch.size() / rows, vocabulary);
  for (int64_t i = 0; i < n; i += rows) {
    const Tensor block = h.rows(i, std::min(n, i + rows));
    const int64_t m = block.dim[0];
    RunningSoftmax states[kMaxRows];
    for (int64_t c = 0; c < vocabulary; c += columns) {
      const Tensor words = table.rows(c, std::min(vocabulary, c + columns));
      const int64_t width = words.dim[0];
      const Tensor logits = view(scratch.data<float>(), {m, width});
      cpu::linear(ctx, logits, block, {&words, 1});
      parallel_for(m, 4, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          float* l = logits.data<float>() + r * width;
          add(states[r], l, width, cap);
          const int64_t t = target[i + r] - c;
          if (0 <= t && t < width) states[r].target = l[t];
        }
      });
    }
    for (int64_t r = 0; r < m; ++r) {
      const RunningSoftmax& s = states[r];
      nll.data<float>()[i + r] =
          target[i + r] < 0 ? 0.0f : static_cast<float>(static_cast<double>(s.max) - s.target + std::log(s.sum));
    }
  }
}

}  // namespace gsae
