#include "kernels/few_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

constexpr int64_t kMost = 8;  // rows of x; more are faster as a product of matrices

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
using Vec [[gnu::vector_size(4 * kLanes)]] = float;
using Bits [[gnu::vector_size(4 * kLanes)]] = uint32_t;
using Halves [[gnu::vector_size(2 * kLanes)]] = uint16_t;

// Elements as the product takes them: widened, and with kRound rounded to bf16 before.
template <bool kRound> inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof x);
  if constexpr (kRound) {  // to_bf16() for numbers, which weights are
    Bits u;
    std::memcpy(&u, &x, sizeof u);
    u = (u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u;
    std::memcpy(&x, &u, sizeof x);
  }
  return x;
}
template <bool> inline Vec load(const BF16* p) {
  Halves h;
  std::memcpy(&h, p, sizeof h);
  const Bits u = __builtin_convertvector(h, Bits) << 16;
  Vec x;
  std::memcpy(&x, &u, sizeof x);
  return x;
}
template <bool kRound> inline float load_one(float w) { return kRound ? to_float(to_bf16(w)) : w; }
template <bool> inline float load_one(BF16 w) { return to_float(w); }

inline float sum_lanes(Vec x) {
  float lanes[kLanes];
  std::memcpy(lanes, &x, sizeof lanes);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// sums[i] = w . x[i] for kN rows of x, each k long.
template <bool kRound, int kN, class W> inline void dots(float (&sums)[kN], const W* w, const float* x, int64_t k) {
  constexpr int kSums = 4;  // of each row, side by side: one would wait for itself
  constexpr int64_t kStep = kSums * kLanes, kAhead = 4096 / sizeof(W);
  Vec s[kN][kSums] = {};
  int64_t c = 0;
  for (; c + kStep <= k; c += kStep) {
    // Weights come one behind the other, row after row, but processors fetch ahead within a page only.
    for (int64_t line = 0; line < kStep; line += 64 / int64_t{sizeof(W)}) __builtin_prefetch(w + c + kAhead + line);
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) {
      const Vec weight = load<kRound>(w + c + j * kLanes);
#pragma GCC unroll 4
      for (int i = 0; i < kN; ++i) s[i][j] += weight * load<false>(x + i * k + c + j * kLanes);
    }
  }
  for (int i = 0; i < kN; ++i) {
    float rest = 0;
    for (int64_t e = c; e < k; ++e) rest += load_one<kRound>(w[e]) * x[i * k + e];
    sums[i] = sum_lanes((s[i][0] + s[i][1]) + (s[i][2] + s[i][3])) + rest;
  }
}

// out[i * columns + r] = w[r] . x[i] for r in [begin, end), i < n
template <bool kRound, class W, class Out>
void product(Out* out, int64_t columns, const W* w, const float* x, int64_t n, int64_t k, int64_t begin, int64_t end) {
  for (int64_t r = begin; r < end; ++r) {
    const auto some = [&]<int kN>(int64_t i) {
      float sums[kN];
      dots<kRound>(sums, w + r * k, x + i * k, k);
      for (int j = 0; j < kN; ++j) store(out + (i + j) * columns + r, sums[j]);
    };
    int64_t i = 0;  // of a weight's row that is in the nearest cache by then
    for (; i + 4 <= n; i += 4) some.template operator()<4>(i);
    if (n - i == 3) some.template operator()<3>(i);
    if (n - i == 2) some.template operator()<2>(i);
    if (n - i == 1) some.template operator()<1>(i);
  }
}

}  // namespace

bool cpu::has_few_rows(Tensor x) {
  return x.dim[0] <= kMost && x.size() <= static_cast<int64_t>(Context::kWorkspaceBytes / sizeof(float));
}

void cpu::linear_few_rows(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights) {
  const int64_t n = x.dim[0], k = x.dim[1], columns = out.dim[1];
  const bool narrow = x.dtype == DType::kBF16;
  float* wide = reinterpret_cast<float*>(ctx.cpu().workspace.data());
  if (narrow) std::transform(x.data<BF16>(), x.data<BF16>() + x.size(), wide, [](BF16 e) { return to_float(e); });
  else wide = x.data<float>();
  // A thread's share should be worth its start: 64 KiB of a weight.
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / k);
  dispatch_float(out.dtype, [&]<class Out>() {
    Out* to = out.data<Out>();
    for (const Tensor& weight : weights) {
      dispatch_float(weight.dtype, [&]<class W>() {
        const W* w = weight.data<W>();
        parallel_for(weight.dim[0], grain, [&](int64_t begin, int64_t end) {
          // a product in bf16 takes its operands in bf16
          if (narrow && weight.dtype == DType::kF32) product<true>(to, columns, w, wide, n, k, begin, end);
          else product<false>(to, columns, w, wide, n, k, begin, end);
        });
      });
      to += weight.dim[0];
    }
  });
}

}  // namespace gsae
