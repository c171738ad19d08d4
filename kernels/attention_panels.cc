#include "kernels/attention_panels.h"

#include <cstring>
#include <limits>
#include <utility>

#include "kernels/dispatch_float.h"
#include "kernels/vector_math.h"

namespace gsae {

namespace {

// Queries lie across the lanes of vectors: a panel of two vectors of queries meets one key per row. Then keys and
// values are read as they are, an element at a time, broadcast; the maximum and the sum over keys run down the lanes;
// and only queries and results are transposed, once each.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kRows = 12;  // 24 of 32 registers accumulate
#else
constexpr int kLanes = 8, kRows = 6;  // 12 of 16
#endif
constexpr int kPanel = 2 * kLanes;
constexpr int64_t kKeys = 256;  // a tile's: its scores stay in the nearest cache

using Vec [[gnu::vector_size(4 * kLanes)]] = float;
using Mask [[gnu::vector_size(4 * kLanes)]] = int32_t;

inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
inline Vec load(const BF16* p) {
  Vec x;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) x[i] = to_float(p[i]);
  return x;
}

// c[i] = c[i] * factor + sum_l a[i * row + l * step] * b[l] for i < M; c and b are rows of a panel. Without
// kAccumulate, c and factor are not read.
template <int M, bool kAccumulate>
inline void product_rows(float* c, const float* a, int64_t row, int64_t step, const float* b, int64_t depth,
                         const float* factor) {
  Vec left[M], right[M];  // registers: every index is a constant once the loops are unrolled
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    left[i] = kAccumulate ? load(c + i * kPanel) * load(factor) : Vec{};
    right[i] = kAccumulate ? load(c + i * kPanel + kLanes) * load(factor + kLanes) : Vec{};
  }
  for (int64_t l = 0; l < depth; ++l, a += step, b += kPanel) {
    const Vec b0 = load(b), b1 = load(b + kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      const float x = a[i * row];
      left[i] += x * b0;
      right[i] += x * b1;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    std::memcpy(c + i * kPanel, &left[i], sizeof(Vec));
    std::memcpy(c + i * kPanel + kLanes, &right[i], sizeof(Vec));
  }
}

template <int M, bool kAccumulate, class... Args> inline void product_rest(int64_t m, Args... args) {
  if (m == M) return product_rows<M, kAccumulate>(args...);
  if constexpr (M > 1) product_rest<M - 1, kAccumulate>(m, args...);
}

template <bool kAccumulate>
void product(float* c, int64_t m, const float* a, int64_t row, int64_t step, const float* b, int64_t depth,
             const float* factor) {
  for (; m >= kRows; m -= kRows, a += kRows * row, c += kRows * kPanel)
    product_rows<kRows, kAccumulate>(c, a, row, step, b, depth, factor);
  product_rest<kRows - 1, kAccumulate>(m, c, a, row, step, b, depth, factor);
}

// One step of a transposition: in every 2 x 2 block of blocks of kBlock x kBlock, exchanges the two off the diagonal.
template <int kBlock, int... kLane> inline void exchange(Vec* x, std::integer_sequence<int, kLane...>) {
  // clang (the build for fuzzing) has no __builtin_shuffle, and GCC before 12 no __builtin_shufflevector
#ifdef __clang__
#define GSAE_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, (__VA_ARGS__)...)
#else
#define GSAE_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Mask{(__VA_ARGS__)...})
#endif
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & kBlock) continue;
    const Vec a = x[i], b = x[i + kBlock];
    x[i] = GSAE_SHUFFLE(a, b, kLane & kBlock ? kLane - kBlock + kLanes : kLane);
    x[i + kBlock] = GSAE_SHUFFLE(a, b, kLane & kBlock ? kLane + kLanes : kLane + kBlock);
  }
#undef GSAE_SHUFFLE
}

inline void transpose(Vec (&x)[kLanes]) {
  constexpr auto kEach = std::make_integer_sequence<int, kLanes>();
  exchange<1>(x, kEach);
  exchange<2>(x, kEach);
  exchange<4>(x, kEach);
  if constexpr (kLanes > 8) exchange<8 % kLanes>(x, kEach);
}

// kLanes queries of one head at consecutive positions, counted from the first of q.
struct Group {
  int64_t head, position;
  int64_t count;  // before the sequence ends; the other lanes repeat the last and are dropped
};

// panel[c][lane] = scale * q[lane][c]
template <class T> void pack_queries(float* panel, const T* q, const Group& g, int64_t size, float scale) {
  const T* row[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) row[lane] = q + (lane < g.count ? lane : g.count - 1) * size;
  int64_t c = 0;
  for (; c + kLanes <= size; c += kLanes) {
    Vec x[kLanes];
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) x[lane] = load(row[lane] + c) * scale;
    transpose(x);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) std::memcpy(panel + (c + i) * kPanel, &x[i], sizeof x[i]);
  }
  for (; c < size; ++c)
    for (int lane = 0; lane < kLanes; ++lane) panel[c * kPanel + lane] = to_float(row[lane][c]) * scale;
}

// out[lane * stride + c] = panel[c][lane] / sum[lane]
template <class T>
void unpack(T* out, int64_t stride, const float* panel, const float* sum, const Group& g, int64_t size) {
  const Vec inverse = 1.0f / load(sum);
  int64_t c = 0;
  for (; c + kLanes <= size; c += kLanes) {
    Vec x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = load(panel + (c + i) * kPanel) * inverse;
    transpose(x);
    for (int lane = 0; lane < g.count; ++lane) {
      T* to = out + lane * stride + c;
#pragma omp simd
      for (int i = 0; i < kLanes; ++i) store(to + i, x[lane][i]);
    }
  }
  for (; c < size; ++c)
    for (int lane = 0; lane < g.count; ++lane) store(out + lane * stride + c, panel[c * kPanel + lane] * inverse[lane]);
}

// Of bf16 keys and values so many are widened at once: a multiple of kRows.
constexpr int64_t kWidened = 48;

// What one thread works in: 144 KiB at most, on its stack.
struct alignas(64) Scratch {
  float queries[kMaxHeadSize * kPanel];
  float result[kMaxHeadSize * kPanel];
  float scores[kKeys * kPanel];  // then probabilities
  float max[kPanel], sum[kPanel], factor[kPanel];
  int32_t position[kPanel];
  float widened[kWidened * kMaxHeadSize];
};

// f(i, n, rows i to i + n of x, as f32), for all of its `count` rows in order: f32 at once and where they are.
template <class F> void for_rows(Scratch&, const float* x, int64_t count, int64_t, F&& f) { f(0, count, x); }
template <class F> void for_rows(Scratch& s, const BF16* x, int64_t count, int64_t size, F&& f) {
  for (int64_t i = 0; i < count; i += kWidened) {
    const int64_t n = std::min(kWidened, count - i);
#pragma omp simd
    for (int64_t e = 0; e < n * size; ++e) s.widened[e] = to_float(x[i * size + e]);
    f(i, n, s.widened);
  }
}

// The scores of keys [key, key + count) become exp(score - max), with score = cap * tanh(score) under a cap; max, sum
// and factor, what the results so far have to be multiplied by, follow.
template <bool kCapped> void softmax(Scratch& s, int64_t key, int64_t count, int32_t window, float cap) {
  float max[kPanel], sum[kPanel] = {};
  std::memcpy(max, s.max, sizeof max);
  for (int64_t j = 0; j < count; ++j) {
    float* row = s.scores + j * kPanel;
    const auto at = static_cast<int32_t>(key + j);
#pragma omp simd
    for (int lane = 0; lane < kPanel; ++lane) {
      const float score = kCapped ? cap * vector_tanh(row[lane]) : row[lane];
      const int32_t back = s.position[lane] - at;
      // the last key is at back = 0, the first at window - 1; what comes later wraps to a large number
      const bool seen = static_cast<uint32_t>(back) < static_cast<uint32_t>(window);
      row[lane] = seen ? score : -std::numeric_limits<float>::infinity();
      max[lane] = row[lane] > max[lane] ? row[lane] : max[lane];
    }
  }
  for (int64_t j = 0; j < count; ++j) {
#pragma omp simd
    for (int lane = 0; lane < kPanel; ++lane) {
      const float p = vector_exp(s.scores[j * kPanel + lane] - max[lane]);
      s.scores[j * kPanel + lane] = p;
      sum[lane] += p;
    }
  }
#pragma omp simd
  for (int lane = 0; lane < kPanel; ++lane) {
    s.factor[lane] = vector_exp(s.max[lane] - max[lane]);
    s.sum[lane] = s.sum[lane] * s.factor[lane] + sum[lane];
    s.max[lane] = max[lane];
  }
}

// One panel against the keys that it sees, and their values.
template <class T>
void attend(Scratch& s, const Group (&groups)[2], const RingRows<T>& keys, const RingRows<T>& values, int64_t size,
            int64_t window, float cap) {
  const int64_t first = keys.start + std::min(groups[0].position, groups[1].position);
  const int64_t last =
      keys.start + std::max(groups[0].position + groups[0].count, groups[1].position + groups[1].count) - 1;
  std::fill_n(s.result, size * kPanel, 0.0f);
  std::fill_n(s.sum, kPanel, 0.0f);
  std::fill_n(s.max, kPanel, std::numeric_limits<float>::lowest());  // finite: -inf - -inf would be NaN
  const auto softmax_tile = cap > 0 ? softmax<true> : softmax<false>;
  for (int64_t j = std::max<int64_t>(0, first - window + 1), count; j <= last; j += count) {
    count = keys.neighbours(j, std::min(kKeys, last + 1 - j));
    for_rows(s, keys.row(j), count, size, [&](int64_t i, int64_t n, const float* rows) {
      product<false>(s.scores + i * kPanel, n, rows, size, 1, s.queries, size, nullptr);
    });
    softmax_tile(s, j, count, static_cast<int32_t>(window), cap);
    for_rows(s, values.row(j), count, size, [&](int64_t i, int64_t n, const float* rows) {
      product<true>(s.result, size, rows, 1, size, s.scores + i * kPanel, n, s.factor);
      std::fill_n(s.factor, kPanel, 1.0f);  // for what follows of the same tile
    });
  }
}

}  // namespace

void cpu::attention_panels(Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, int64_t start,
                           const AttentionOptions& o) {
  const int64_t heads = q.dim[1], length = q.dim[2], size = q.dim[3], kv_heads = k.dim[1], share = heads / kv_heads;
  const int64_t blocks = (length + kLanes - 1) / kLanes;
  const int64_t panels = (blocks * share + 1) / 2;  // of a key head: the query heads of a block, then the next block
  const float scale = o.softcap > 0 ? o.scale / o.softcap : o.scale;
  const int64_t window = o.window > 0 ? std::min(o.window, start + length) : start + length;
  dispatch_float(q.dtype, [&]<class In>() {
    const In* queries = q.data<In>();
    dispatch_float(out.dtype, [&]<class Out>() {
      Out* result = out.data<Out>();
      // Panels differ in work, the last ones see most keys; each is a thread's own, so who takes which changes nothing.
#pragma omp parallel for schedule(dynamic)
      for (int64_t item = 0; item < q.dim[0] * kv_heads * panels; ++item) {
        const int64_t panel = panels - 1 - item % panels, kv = item / panels;  // kv: of all B * Hkv
        const int64_t sequence = kv / kv_heads, first_head = kv % kv_heads * share;
        Scratch s;
        Group groups[2];
        for (int64_t h = 0; h < 2; ++h) {
          // the last panel may lack its second group: it then does its first twice
          const int64_t g = std::min(panel * 2 + h, blocks * share - 1), position = g / share * kLanes;
          groups[h] = {first_head + g % share, position, std::min<int64_t>(kLanes, length - position)};
          for (int lane = 0; lane < kLanes; ++lane)
            s.position[h * kLanes + lane] = static_cast<int32_t>(start + position + lane);
          pack_queries(s.queries + h * kLanes,
                       queries + ((sequence * heads + groups[h].head) * length + position) * size, groups[h], size,
                       scale);
        }
        attend(s, groups, RingRows<In>(k, k_cache, start, kv), RingRows<In>(v, v_cache, start, kv), size, window,
               o.softcap);
        for (int64_t h = 0; h < 2; ++h) {
          const Group& g = groups[h];
          unpack(result + (sequence * length + g.position) * heads * size + g.head * size, heads * size,
                 s.result + h * kLanes, s.sum + h * kLanes, g, size);
        }
      }
    });
  });
}

}  // namespace gsae
