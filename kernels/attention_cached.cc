#include "kernels/attention_cached.h"

#include <cmath>
#include <limits>

#include "kernels/attention_panels.h"
#include "kernels/checkf.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"
#include "kernels/dispatch_float.h"
#include "kernels/parallel.h"
#include "kernels/vector_math.h"

namespace gsae {

namespace {

// What both ops ask of a cache and of the rows that belong behind it.
void check_cache(const char* op, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start) {
  CHECKF(k.rank == 4 && (k.dtype == DType::kF32 || k.dtype == DType::kBF16),
         "{}: k {} must be f32 or bf16 (B, Hkv, T, dh)", op, k);
  const int64_t batch = k.dim[0], heads = k.dim[1], length = k.dim[2], size = k.dim[3];
  CHECKF(v.is({batch, heads, length, size}) && v.dtype == k.dtype, "{}: v {} must match k {}", op, v, k);
  CHECKF(k_cache.rank == 4 && k_cache.is({batch, heads, k_cache.dim[2], size}) && k_cache.dim[2] > 0 &&
             k_cache.dtype == k.dtype,
         "{}: k_cache {} must be (B, Hkv, C, dh) in the dtype of k {}", op, k_cache, k);
  CHECKF(v_cache.is({batch, heads, k_cache.dim[2], size}) && v_cache.dtype == k.dtype,
         "{}: v_cache {} must match k_cache {}", op, v_cache, k_cache);
  CHECKF(0 < size && size <= kMaxHeadSize, "{}: k {}: heads must have 1 to {} elements", op, k, kMaxHeadSize);
  CHECKF(start.is({1}) && start.dtype == DType::kI32, "{}: start {} must be i32[1]", op, start);
}

}  // namespace

void attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                      Tensor start, const AttentionOptions& o) {
  check_cache("attention_cached", k_cache, v_cache, k, v, start);
  const int64_t batch = k.dim[0], kv_heads = k.dim[1], length = k.dim[2], size = k.dim[3];
  CHECKF(q.rank == 4 && q.is({batch, q.dim[1], length, size}) && q.dtype == k.dtype,
         "attention_cached: q {} and k {} differ in B, T, dh or dtype", q, k);
  const int64_t heads = q.dim[1];
  CHECKF(kv_heads > 0 && heads % kv_heads == 0, "attention_cached: the heads of q {} are no multiple of those of k {}",
         q, k);
  CHECKF(out.is({batch * length, heads * size}), "attention_cached: out {} must be ({}, {})", out, batch * length,
         heads * size);
  CHECKF(std::isfinite(o.scale) && o.scale > 0 && o.softcap >= 0 && o.window >= 0,
         "attention_cached: scale {} must be positive, softcap {} and window {} at least 0", o.scale, o.softcap,
         o.window);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), attention_cached(ctx, out, q, k, v, k_cache, v_cache, start, o));
}

void append_cached(Context& ctx, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start) {
  check_cache("append_cached", k_cache, v_cache, k, v, start);
  if (k.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), append_cached(ctx, k_cache, v_cache, k, v, start));
}

namespace {

constexpr int64_t kKeys = 512;  // of a part: its scores stay in the nearest cache
constexpr int64_t kHeads = 8;   // query heads of one key head that meet its keys together

// Of one query head over a part of its keys: sum_j exp(s[j] - max) v[j], and what it is relative to.
struct Partial {
  float max, sum;
};

// scores[h][j] = scale * q[h] . key(first + j), softcapped; then exp(score - max), and result[h] = their sum of values.
template <class T>
void attend(float* const* results, Partial* partials, const T* const* queries, int64_t heads, const RingRows<T>& keys,
            const RingRows<T>& values, int64_t first, int64_t count, const AttentionOptions& o) {
  float scores[kHeads][kKeys];
  const int64_t size = keys.size;
  for (int64_t j = 0; j < count; ++j) {
    const T* key = keys.row(first + j);
    for (int64_t h = 0; h < heads; ++h) {
      const T* query = queries[h];
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t e = 0; e < size; ++e) dot += to_float(query[e]) * to_float(key[e]);
      scores[h][j] = dot * o.scale;
    }
  }
  for (int64_t h = 0; h < heads; ++h) {
    float max = std::numeric_limits<float>::lowest(), sum = 0;
    float* s = scores[h];
    if (const float cap = o.softcap, inverse = 1 / cap; cap > 0) {
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) s[j] = softcapped(s[j], cap, inverse);
    }
#pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < count; ++j) max = s[j] > max ? s[j] : max;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; ++j) {
      s[j] = vector_exp(s[j] - max);
      sum += s[j];
    }
    partials[h] = {max, sum};
    std::fill_n(results[h], size, 0.0f);
  }
  for (int64_t j = 0; j < count; ++j) {
    const T* value = values.row(first + j);
    for (int64_t h = 0; h < heads; ++h) {
      float* result = results[h];
      const float p = scores[h][j];
#pragma omp simd
      for (int64_t e = 0; e < size; ++e) result[e] += p * to_float(value[e]);
    }
  }
}

// out = sum_p exp(max[p] - max) results[p] / sum_p exp(max[p] - max) sum[p]
template <class Out>
void combine(Out* out, const float* results, const Partial* partials, int64_t parts, int64_t size) {
  float max = std::numeric_limits<float>::lowest(), sum = 0, whole[kMaxHeadSize] = {};
  for (int64_t p = 0; p < parts; ++p) max = std::max(max, partials[p].max);
  for (int64_t p = 0; p < parts; ++p) {
    const float factor = vector_exp(partials[p].max - max);
    sum += factor * partials[p].sum;
#pragma omp simd
    for (int64_t e = 0; e < size; ++e) whole[e] += factor * results[p * size + e];
  }
  const float inverse = 1 / sum;
#pragma omp simd
  for (int64_t e = 0; e < size; ++e) store(out + e, whole[e] * inverse);
}

// One position of each sequence: its keys are read once for all query heads that share them, in parts, for several
// threads. Panels of queries, as attention() has them, would be nearly empty.
template <class T>
void attend_one(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, int64_t start,
                const AttentionOptions& o) {
  const int64_t heads = q.dim[1], size = q.dim[3], kv_heads = k.dim[1], share = heads / kv_heads;
  const int64_t first = o.window > 0 ? std::max<int64_t>(0, start - o.window + 1) : 0, seen = start + 1 - first;
  const int64_t all = q.dim[0] * heads, parts = (seen + kKeys - 1) / kKeys, groups = (share + kHeads - 1) / kHeads;
  CHECKF(all * parts * (size + 2) <= static_cast<int64_t>(Context::kWorkspaceBytes / sizeof(float)),
         "attention_cached: the parts of {} positions for q {} do not fit the workspace", seen, q);
  float* results = reinterpret_cast<float*>(ctx.cpu().workspace.data());      // (all, parts, dh)
  auto* partials = reinterpret_cast<Partial*>(results + all * parts * size);  // (all, parts)
  const T* queries = q.data<T>();
#pragma omp parallel for schedule(dynamic)
  for (int64_t item = 0; item < q.dim[0] * kv_heads * groups * parts; ++item) {
    const int64_t part = item % parts, group = item / parts % groups, kv = item / parts / groups;
    const int64_t begin = kv * share + group * kHeads;  // the first head of the group, of all B * Hq
    const int64_t count = std::min(kHeads, share - group * kHeads), key = first + part * kKeys;
    float* result[kHeads];
    const T* query[kHeads];
    Partial partial[kHeads];
    for (int64_t h = 0; h < count; ++h) {
      result[h] = results + ((begin + h) * parts + part) * size;
      query[h] = queries + (begin + h) * size;
    }
    attend(result, partial, query, count, RingRows<T>(k, k_cache, start, kv), RingRows<T>(v, v_cache, start, kv), key,
           std::min(kKeys, start + 1 - key), o);
    for (int64_t h = 0; h < count; ++h) partials[(begin + h) * parts + part] = partial[h];
  }
  dispatch_float(out.dtype, [&]<class Out>() {
    Out* to = out.data<Out>();
    parallel_for(all, 8, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h)
        combine(to + h * size, results + h * parts * size, partials + h * parts, parts, size);
    });
  });
}

int64_t value_of(Tensor start) {
  const int64_t s = *start.data<int32_t>();
  CHECKF(s >= 0, "attention_cached: start {} must be at least 0", s);
  return s;
}

}  // namespace

void cpu::attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                           Tensor start, const AttentionOptions& o) {
  const int64_t s = value_of(start), capacity = k_cache.dim[2], length = q.dim[2];
  CHECKF(s <= capacity || (o.window > 0 && o.window - 1 <= capacity),
         "attention_cached: k_cache {} is too short for what position {} sees", k_cache, s);
  CHECKF(s + length <= std::numeric_limits<int32_t>::max(), "attention_cached: q {} at {}: positions must fit 32 bits",
         q, s);
  if (length > 1) return attention_panels(out, q, k, v, k_cache, v_cache, s, o);
  // as many sequences at a time as the workspace takes results of
  const int64_t seen = o.window > 0 ? std::min(o.window, s + 1) : s + 1, parts = (seen + kKeys - 1) / kKeys;
  const auto room = static_cast<int64_t>(Context::kWorkspaceBytes / sizeof(float));
  const int64_t step = std::max<int64_t>(1, room / (q.dim[1] * parts * (q.dim[3] + 2)));
  for (int64_t b = 0; b < q.dim[0]; b += step) {
    const int64_t end = std::min(q.dim[0], b + step);
    dispatch_float(q.dtype, [&]<class T>() {
      attend_one<T>(ctx, out.rows(b, end), q.rows(b, end), k.rows(b, end), v.rows(b, end), k_cache.rows(b, end),
                    v_cache.rows(b, end), s, o);
    });
  }
}

void cpu::append_cached(Context&, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start) {
  const int64_t s = value_of(start), capacity = k_cache.dim[2], length = k.dim[2];
  const int64_t skipped = std::max<int64_t>(0, length - capacity);
  const size_t row = static_cast<size_t>(k.dim[3]) * size_of(k.dtype);
  parallel_for(k.dim[0] * k.dim[1], 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head)
      for (int64_t t = skipped; t < length; ++t) {
        const auto from = static_cast<size_t>(head * length + t) * row;
        const auto to = static_cast<size_t>(head * capacity + (s + t) % capacity) * row;
        std::copy_n(k.ptr + from, row, k_cache.ptr + to);
        std::copy_n(v.ptr + from, row, v_cache.ptr + to);
      }
  });
}

}  // namespace gsae
