#include "kernels/few_rows.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"

namespace gsae {

namespace {

constexpr int kMost = 8;  // rows of x: their sums, for two rows of a weight, stay in registers

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

// sums[r][i] = w[r] . x[i] for kRows rows of a weight and kN of x, each k long and k apart.
template <bool kRound, int kRows, int kN, class W>
inline void dots(float (&sums)[kRows][kN], const W* w, const float* x, int64_t k) {
  Vec s[kRows][kN] = {};
  int64_t c = 0;
  for (; c + kLanes <= k; c += kLanes) {
    Vec weight[kRows];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) weight[r] = load<kRound>(w + r * k + c);
#pragma GCC unroll 8
    for (int i = 0; i < kN; ++i) {
      const Vec xi = load<false>(x + i * k + c);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) s[r][i] += weight[r] * xi;
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int i = 0; i < kN; ++i) {
      float rest = 0;
      for (int64_t e = c; e < k; ++e) rest += load_one<kRound>(w[r * k + e]) * x[i * k + e];
      sums[r][i] = sum_lanes(s[r][i]) + rest;
    }
}

// out[i * columns + r] = w[r] . x[i] for r in [begin, end)
template <bool kRound, int kN, class W, class Out>
void product(Out* out, int64_t columns, const W* w, const float* x, int64_t k, int64_t begin, int64_t end) {
  constexpr int kRows = kN > 4 ? 2 : 4;  // streams from memory, and independent sums
  const auto some = [&]<int kCount>(int64_t r) {
    float sums[kCount][kN];
    dots<kRound, kCount, kN>(sums, w + r * k, x, k);
    for (int j = 0; j < kCount; ++j)
      for (int i = 0; i < kN; ++i) store(out + i * columns + r + j, sums[j][i]);
  };
  int64_t r = begin;
  for (; r + kRows <= end; r += kRows) some.template operator()<kRows>(r);
  for (; r < end; ++r) some.template operator()<1>(r);
}

// The same for n rows of x, known when it runs.
template <bool kRound, int kN = kMost, class... Args> void product_of(int64_t n, Args... args) {
  if (n == kN) return product<kRound, kN>(args...);
  if constexpr (kN > 1) product_of<kRound, kN - 1>(n, args...);
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
  const int64_t grain = std::max<int64_t>(4, (int64_t{1} << 15) / k / 4 * 4);
  dispatch_float(out.dtype, [&]<class Out>() {
    Out* to = out.data<Out>();
    for (const Tensor& weight : weights) {
      dispatch_float(weight.dtype, [&]<class W>() {
        const W* w = weight.data<W>();
        parallel_for(weight.dim[0], grain, [&](int64_t begin, int64_t end) {
          // a product in bf16 takes its operands in bf16
          if (narrow && weight.dtype == DType::kF32) product_of<true>(n, to, columns, w, wide, k, begin, end);
          else product_of<false>(n, to, columns, w, wide, k, begin, end);
        });
      });
      to += weight.dim[0];
    }
  });
}

}  // namespace gsae
