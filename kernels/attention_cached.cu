#include "kernels/attention_cached.h"

#include <algorithm>
#include <limits>

#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kKeys = 64;  // at a time: their scores are in shared memory

struct Operands {
  const void *q, *k, *v, *k_cache, *v_cache;
  const int32_t* start;
  int length, size, heads, kv_heads, capacity;
  int window;                         // as large as an int gets for none
  int first, count;                   // positions of q in this launch
  int part_keys;                      // a multiple of kKeys
  int parts;                          // for the longest reach that the cache allows
  float scale, softcap, inverse_cap;  // a division has a slow path that is called, with registers spilled around it
  float* partial;  // of each row of q and part: the highest score, the sum of exp(score - highest), that of the values
};

// Rows of q that share a key head, position by position; kRows of them are a block's.
__device__ int position_of(const Operands& x, int row) { return x.first + row / (x.heads / x.kv_heads); }

// Positions lie below 2^31: a division of 64 bits would be a call, with registers spilled around it.
__device__ uint32_t ring_row(int64_t position, int64_t capacity) {
  return static_cast<uint32_t>(position) % static_cast<uint32_t>(capacity);
}

// The keys that the rows [row, row + kRows) of a block see between them.
struct Reach {
  int64_t begin, end;
};
template <int kRows> __device__ Reach reach_of(const Operands& x, int64_t start, int row) {
  const int rows = x.count * (x.heads / x.kv_heads), last = min(row + kRows, rows) - 1;
  const int64_t begin = start + position_of(x, row) - x.window + 1;
  return {begin > 0 ? begin : 0, start + position_of(x, last) + 1};
}

__device__ int64_t partial_at(const Operands& x, int64_t kv, int row, int part) {
  const int rows = x.count * (x.heads / x.kv_heads);
  return ((kv * rows + row) * x.parts + part) * (x.size + 2);
}

// v = row[c..c + N), zeros beyond its end.
template <int N, bool kVector, class T> __device__ void load_columns(float (&v)[N], const T* row, int c, int size) {
  if constexpr (kVector) {
    if (c < size) load_row<N>(v, row + c);
    else
      for (int i = 0; i < N; ++i) v[i] = 0;
  } else {
    for (int i = 0; i < N; ++i) v[i] = c + i < size ? static_cast<float>(row[c + i]) : 0.0f;
  }
}

// A block takes kRows rows of q over one part of the keys that they see. Warps take the keys in turn for the scores,
// a lane the columns of its own; then threads take columns of the result. kDim: of a head, at least.
// Two blocks to a multiprocessor: left to itself, the compiler spills a register rather than take more than 64.
template <class T, int kDim, int kRows, bool kVector>
__global__ void __launch_bounds__(kThreads, 2) attention_cached_kernel(Operands x) {
  constexpr int kPer = kDim / 32;                                  // columns of a lane
  constexpr int kColumns = kDim > kThreads ? kDim / kThreads : 1;  // of a thread
  __shared__ float scores[kRows][kKeys], highest[kRows], factor[kRows], sums[kRows];
  const int tiles = gridDim.x / x.parts, row = static_cast<int>(blockIdx.x) % tiles * kRows;
  const int part = static_cast<int>(blockIdx.x) / tiles, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t kv = blockIdx.y, start = *x.start;
  const int sequence = static_cast<int>(blockIdx.y) / x.kv_heads, kv_head = static_cast<int>(blockIdx.y) % x.kv_heads;
  const int share = x.heads / x.kv_heads, rows = x.count * share;
  const Reach reach = reach_of<kRows>(x, start, row);
  const int64_t begin = reach.begin + int64_t(part) * x.part_keys;
  const int64_t end = begin + x.part_keys < reach.end ? begin + x.part_keys : reach.end;
  if (begin >= end) return;

  const auto key_row = [&](const void* fresh, const void* cache, int64_t position) {
    return position < start ? static_cast<const T*>(cache) + (kv * x.capacity + ring_row(position, x.capacity)) * x.size
                            : static_cast<const T*>(fresh) + (kv * x.length + position - start) * x.size;
  };
  float q[kRows][kPer];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int at = min(row + r, rows - 1);  // beyond the last: again, and dropped
    const int64_t head = int64_t(sequence) * x.heads + kv_head * share + at % share;
    const T* from = static_cast<const T*>(x.q) + (head * x.length + position_of(x, at)) * x.size;
    load_columns<kPer, kVector>(q[r], from, lane * kPer, x.size);
  }
  float result[kRows][kColumns] = {};
  if (threadIdx.x < kRows) highest[threadIdx.x] = -INFINITY, sums[threadIdx.x] = 0;

  for (int64_t key = begin; key < end; key += kKeys) {
    const int count = static_cast<int>(end - key < kKeys ? end - key : kKeys);
#pragma unroll 2
    for (int j = warp; j < count; j += kWarps) {
      float k[kPer];
      load_columns<kPer, kVector>(k, key_row(x.k, x.k_cache, key + j), lane * kPer, x.size);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float dot = 0;
#pragma unroll
        for (int i = 0; i < kPer; ++i) dot = fmaf(q[r][i], k[i], dot);
        dot = warp_sum(dot) * x.scale;
        if (lane != r) continue;
        if (x.softcap > 0) dot = x.softcap * tanhf(dot * x.inverse_cap);
        const int64_t back = start + position_of(x, min(row + r, rows - 1)) - (key + j);
        scores[r][j] = 0 <= back && back < x.window ? dot : -INFINITY;
      }
    }
    __syncthreads();
    for (int r = warp; r < kRows; r += kWarps) {
      float most = highest[r], sum = 0;
      for (int j = lane; j < count; j += 32) most = fmaxf(most, scores[r][j]);
      most = warp_max(most);
      const float base = most == -INFINITY ? 0.0f : most;  // no key seen yet: -inf - -inf would be NaN
      for (int j = lane; j < count; j += 32) {
        const float p = expf(scores[r][j] - base);
        scores[r][j] = p;
        sum += p;
      }
      sum = warp_sum(sum);
      if (lane == 0) {
        factor[r] = expf(highest[r] - base);
        sums[r] = sums[r] * factor[r] + sum;
        highest[r] = most;
      }
    }
    __syncthreads();
    const int c = static_cast<int>(threadIdx.x) * kColumns;
    if (c < x.size) {
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        for (int i = 0; i < kColumns; ++i) result[r][i] *= factor[r];
#pragma unroll 4
      for (int j = 0; j < count; ++j) {
        float v[kColumns];
        load_columns<kColumns, kVector>(v, key_row(x.v, x.v_cache, key + j), c, x.size);
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          for (int i = 0; i < kColumns; ++i) result[r][i] = fmaf(scores[r][j], v[i], result[r][i]);
      }
    }
    __syncthreads();  // before the scores and factors of the next keys
  }

#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (row + r >= rows) break;
    float* to = x.partial + partial_at(x, kv, row + r, part);
    if (threadIdx.x == 0) to[0] = highest[r], to[1] = sums[r];
    const int c = static_cast<int>(threadIdx.x) * kColumns;
    for (int i = 0; i < kColumns; ++i)
      if (c + i < x.size) to[2 + c + i] = result[r][i];
  }
}

// Puts the parts of a row together; a block per row.
template <class Out, int kRows> __global__ void __launch_bounds__(kThreads) combine_kernel(Out* out, Operands x) {
  const int share = x.heads / x.kv_heads, row = blockIdx.x;
  const int64_t kv = blockIdx.y;
  const Reach reach = reach_of<kRows>(x, *x.start, row / kRows * kRows);
  const int parts = (static_cast<int>(reach.end - reach.begin) + x.part_keys - 1) / x.part_keys;
  const float* from = x.partial + partial_at(x, kv, row, 0);
  const int stride = x.size + 2;
  float most = -INFINITY, sum = 0;
  for (int p = 0; p < parts; ++p) most = fmaxf(most, from[p * stride]);
  for (int p = 0; p < parts; ++p) sum += expf(from[p * stride] - most) * from[p * stride + 1];
  const float inverse = 1 / sum;
  const int sequence = static_cast<int>(blockIdx.y) / x.kv_heads, kv_head = static_cast<int>(blockIdx.y) % x.kv_heads;
  const int64_t head = int64_t(kv_head) * share + row % share;
  Out* to = out + ((int64_t(sequence) * x.length + position_of(x, row)) * x.heads + head) * x.size;
  for (int c = threadIdx.x; c < x.size; c += kThreads) {
    float y = 0;
    for (int p = 0; p < parts; ++p) y += expf(from[p * stride] - most) * from[p * stride + 2 + c];
    to[c] = static_cast<Out>(y * inverse);
  }
}

// A block per row of k: one thread moves kBytes of it, and of v's.
template <class Packet>
__global__ void __launch_bounds__(kThreads)
    append_cached_kernel(Packet* k_cache, Packet* v_cache, const Packet* k, const Packet* v, const int32_t* start,
                         int length, int skipped, int64_t capacity, int packets) {
  const int64_t head = blockIdx.y, t = skipped + int64_t(blockIdx.x);
  const int64_t from = (head * length + t) * packets, to = (head * capacity + ring_row(*start + t, capacity)) * packets;
  for (int i = threadIdx.x; i < packets; i += kThreads) {
    k_cache[to + i] = k[from + i];
    v_cache[to + i] = v[from + i];
  }
}

template <class T, int kDim, int kRows> void attend(Context& ctx, Tensor out, const Operands& x, int64_t kv) {
  constexpr int kPer = kDim / 32;
  const bool vector = x.size % kPer == 0 && aligned(16, {x.q, x.k, x.v, x.k_cache, x.v_cache});
  const int rows = x.count * (x.heads / x.kv_heads), tiles = (rows + kRows - 1) / kRows;
  launch(vector ? attention_cached_kernel<T, kDim, kRows, true> : attention_cached_kernel<T, kDim, kRows, false>,
         Grid(int64_t(tiles) * x.parts, kv), kThreads, 0, ctx.cuda().stream, x);
  dispatch_device_float(out.dtype, [&]<class Out>() {
    launch(combine_kernel<Out, kRows>, Grid(rows, kv), kThreads, 0, ctx.cuda().stream, device_data<Out>(out), x);
  });
}

}  // namespace

void attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                      Tensor start, const AttentionOptions& o) {
  const Range range("attention_cached");
  constexpr int64_t kWidest = std::numeric_limits<int>::max();
  const int64_t length = q.dim[2], size = q.dim[3], heads = q.dim[1], kv_heads = k.dim[1], capacity = k_cache.dim[2];
  const int64_t rows = q.dim[0] * heads, share = heads / kv_heads;  // rows: of one position
  const auto room = static_cast<int64_t>(ctx.cuda().workspace_bytes / sizeof(float)) / (size + 2);  // parts of rows
  CHECK(rows <= room, "attention_cached: q " + describe(q) + " has more heads than the workspace takes results of");

  // Positions at a time, and the shortest parts, that the workspace takes the results of.
  const int64_t count = std::min(length, room / rows), most_keys = capacity + length;
  const int64_t parts = std::min((most_keys + kKeys - 1) / kKeys, room / (rows * count));
  const int64_t part_keys = ((most_keys + parts - 1) / parts + kKeys - 1) / kKeys * kKeys;
  Operands x{.q = q.ptr,
             .k = k.ptr,
             .v = v.ptr,
             .k_cache = k_cache.ptr,
             .v_cache = v_cache.ptr,
             .start = start.data<int32_t>(),
             .length = static_cast<int>(length),
             .size = static_cast<int>(size),
             .heads = static_cast<int>(heads),
             .kv_heads = static_cast<int>(kv_heads),
             .capacity = static_cast<int>(capacity),
             .window = static_cast<int>(o.window > 0 ? std::min(o.window, kWidest) : kWidest),
             .first = 0,
             .count = 0,
             .part_keys = static_cast<int>(part_keys),
             .parts = static_cast<int>((most_keys + part_keys - 1) / part_keys),
             .scale = o.scale,
             .softcap = o.softcap,
             .inverse_cap = o.softcap > 0 ? 1 / o.softcap : 0,
             .partial = workspace<float>(ctx, rows * count * parts * (size + 2))};
  const auto run = [&]<class T, int kDim>() {
    const int64_t together = x.count * share;  // rows that may share a block
    if (together <= 1) attend<T, kDim, 1>(ctx, out, x, q.dim[0] * kv_heads);
    else if (together <= 2) attend<T, kDim, 2>(ctx, out, x, q.dim[0] * kv_heads);
    else if (together <= 4) attend<T, kDim, 4>(ctx, out, x, q.dim[0] * kv_heads);
    else attend<T, kDim, 8>(ctx, out, x, q.dim[0] * kv_heads);
  };
  for (int64_t first = 0; first < length; first += count) {
    x.first = static_cast<int>(first), x.count = static_cast<int>(std::min(count, length - first));
    dispatch_device_float(q.dtype, [&]<class T>() {
      if (size <= 64) run.template operator()<T, 64>();
      else if (size <= 128) run.template operator()<T, 128>();
      else run.template operator()<T, 256>();
    });
  }
}

void append_cached(Context& ctx, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start) {
  const Range range("append_cached");
  const int64_t length = k.dim[2], capacity = k_cache.dim[2], skipped = std::max<int64_t>(0, length - capacity);
  const int64_t bytes = k.dim[3] * static_cast<int64_t>(size_of(k.dtype));
  const auto move = [&]<class Packet>() {
    const auto in = [](Tensor t) { return reinterpret_cast<Packet*>(t.ptr); };
    launch(append_cached_kernel<Packet>, Grid(length - skipped, k.dim[0] * k.dim[1]), kThreads, 0, ctx.cuda().stream,
           in(k_cache), in(v_cache), in(k), in(v), start.data<int32_t>(), static_cast<int>(length),
           static_cast<int>(skipped), capacity, static_cast<int>(bytes / sizeof(Packet)));
  };
  if (bytes % 16 == 0 && aligned(16, {k_cache.ptr, v_cache.ptr, k.ptr, v.ptr})) move.template operator()<uint4>();
  else move.template operator()<ushort1>();
}

}  // namespace gsae::cuda
