#include "kernels/statistics.h"

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

void add_sum(Context& ctx, Tensor total, Tensor x) {
  CHECKF(total.is({1}) && total.dtype == DType::kF64 && x.rank == 1, "add_sum: total {} and x {}", total, x);
  GSAE_DISPATCH(ctx.device(), add_sum(ctx, total, x));
}

void add_moments(Context& ctx, Tensor sum, Tensor square, Tensor x) {
  CHECKF(x.rank == 2 && sum.is({x.dim[1]}) && sum.dtype == DType::kF64 && square.is({1}) && square.dtype == DType::kF64,
         "add_moments: sum {}, square {} and x {}", sum, square, x);
  GSAE_DISPATCH(ctx.device(), add_moments(ctx, sum, square, x));
}

void update_idle(Context& ctx, Tensor idle, Tensor total, Tensor fired, int64_t rows) {
  CHECKF(fired.rank == 1 && fired.dtype == DType::kI32 && idle.is({fired.dim[0]}) && idle.dtype == DType::kI64 &&
             total.is({fired.dim[0]}) && total.dtype == DType::kI64,
         "update_idle: idle {}, total {} and fired {}", idle, total, fired);
  GSAE_DISPATCH(ctx.device(), update_idle(ctx, idle, total, fired, rows));
}

void summarise_latents(Context& ctx, Tensor out, Tensor idle, Tensor theta, int64_t window) {
  CHECKF(idle.rank == 1 && idle.dtype == DType::kI64 && theta.is({idle.dim[0]}) && theta.dtype == DType::kF32 &&
             out.is({kLatentStatistics}) && out.dtype == DType::kF64,
         "summarise_latents: out {}, idle {} and theta {}", out, idle, theta);
  CHECKF(idle.dim[0] > 0, "summarise_latents: no latents in {}", idle);
  GSAE_DISPATCH(ctx.device(), summarise_latents(ctx, out, idle, theta, window));
}

void cpu::add_sum(Context&, Tensor total, Tensor x) {
  const float* v = x.data<float>();
  double sum = 0;
  for (int64_t i = 0; i < x.dim[0]; ++i) sum += v[i];
  total.data<double>()[0] += sum;
}

void cpu::add_moments(Context&, Tensor sum, Tensor square, Tensor x) {
  const int64_t n = x.dim[0], d = x.dim[1];
  const float* v = x.data<float>();
  constexpr int64_t kStripe = 64;
  double* s = sum.data<double>();
  std::vector<double> squares((d + kStripe - 1) / kStripe);
  parallel_for(d, kStripe, [&](int64_t begin, int64_t end) {
    double columns[kStripe] = {}, squared[kStripe] = {};
    for (int64_t r = 0; r < n; ++r) {
      const float* row = v + r * d + begin;
#pragma omp simd
      for (int64_t c = 0; c < end - begin; ++c) {
        const double e = row[c];
        columns[c] += e;
        squared[c] += e * e;
      }
    }
    double part = 0;
    for (int64_t c = 0; c < end - begin; ++c) s[begin + c] += columns[c], part += squared[c];
    squares[begin / kStripe] = part;
  });
  for (const double part : squares) square.data<double>()[0] += part;
}

void cpu::update_idle(Context&, Tensor idle, Tensor total, Tensor fired, int64_t rows) {
  int64_t *silent = idle.data<int64_t>(), *count = total.data<int64_t>();
  int32_t* f = fired.data<int32_t>();
  for (int64_t i = 0; i < fired.dim[0]; ++i) {
    silent[i] = f[i] > 0 ? 0 : silent[i] + rows;
    count[i] += f[i];
    f[i] = 0;
  }
}

void cpu::summarise_latents(Context&, Tensor out, Tensor idle, Tensor theta, int64_t window) {
  const int64_t latents = idle.dim[0];
  const int64_t* silent = idle.data<int64_t>();
  const float* thetas = theta.data<float>();
  double dead = 0, sum = 0;
  float lowest = std::numeric_limits<float>::infinity(), highest = -lowest;
  for (int64_t i = 0; i < latents; ++i) {
    dead += silent[i] >= window;
    sum += thetas[i];
    lowest = std::fmin(lowest, thetas[i]);
    highest = std::fmax(highest, thetas[i]);
  }
  double* o = out.data<double>();
  o[kDeadLatents] = dead;
  o[kMeanThreshold] = sum / static_cast<double>(latents);
  o[kLowestThreshold] = lowest;
  o[kHighestThreshold] = highest;
}

}  // namespace gsae
