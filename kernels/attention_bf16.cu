#include <algorithm>
#include <climits>

#include "kernels/attention_cuda.h"
#include "kernels/launch.h"
#include "kernels/mma.cuh"
#include "kernels/reduce.cuh"

namespace gsae::cuda {
namespace {

using bf16 = __nv_bfloat16;

// How the work is cut. A block has kWarps * kTiles * 16 rows of queries and meets kKeys keys at a time; a warp has
// kTiles tiles of 16 rows for itself, with all of their scores and results in registers, kTiles * (kDim + kKeys) / 2 a
// lane: no sum ever crosses a warp.
//
// A fragment of k or v is read from shared memory once for kTiles products of 16 rows, one of q once for kKeys / 8. An
// SM reads 128 bytes a clock, a fragment for two products in 4 clocks, in which the tensor cores do two products on
// sm_80 and two and a half on sm_90. So with kTiles = 1 shared memory is what limits, with 2 it no longer is; but
// kDim = 256 leaves no registers for that.
template <int kDim_, int kTiles_, int kWarps_, int kKeys_> struct Shape {
  static constexpr int kDim = kDim_, kTiles = kTiles_, kWarps = kWarps_, kKeys = kKeys_;
  static constexpr int kThreads = 32 * kWarps, kWarpRows = 16 * kTiles, kRows = kWarps * kWarpRows;
  static constexpr int kStride = kDim + 8;  // of a row in shared memory: 8 rows, as an ldmatrix reads them, then lie
                                            // in different banks
  static constexpr int kStage = 2 * kKeys * kStride;  // k and v
  static constexpr int64_t kSharedBytes = int64_t(kRows * kStride + 2 * kStage) * sizeof(bf16);
  // Blocks that an SM's registers and shared memory are to hold
  static constexpr int kBlocks = kWarps > 4 ? 1 : 2;
};

struct Operands {
  void* out;
  bool narrow;  // out is bf16
  const bf16 *q, *k, *v;
  int length, size, heads, kv_heads;
  int packed;           // query heads of a block: 1 or 2 of those that share a key head
  int window;           // 1 to length
  float inside, scale;  // a score, in powers of 2, is scale * tanh(inside * (q . k)), or scale * (q . k)
};

struct Source {
  const bf16* row;
  bool valid;  // else zeros are copied; row is somewhere in the tensor all the same
};

// Starts copying kRows rows of kTensors tensors to shared memory, row r from source(tensor, r); zeros beyond size.
template <class S, int kRows, int kTensors, class F> __device__ void load_rows(bf16* tile, int size, F source) {
  constexpr int kChunks = S::kDim / 8, kStep = S::kThreads / kChunks;
  static_assert(S::kThreads % kChunks == 0 && kRows % kStep == 0);
  const int c = threadIdx.x % kChunks * 8, first = threadIdx.x / kChunks;
  bf16* to = tile + first * S::kStride + c;
  const bool inside = c < size;
#pragma unroll
  for (int i = 0; i < kRows; i += kStep)
#pragma unroll
    for (int t = 0; t < kTensors; ++t) {
      const Source from = source(t, first + i);
      cp_async_16(to + (t * kRows + i) * S::kStride, from.row + (inside ? c : 0), from.valid && inside);
    }
}

__device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

__device__ float quad_max(float x) {  // over the four lanes that share a row
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// What a warp has of its queries: a lane holds rows g and g + 8 of each tile, as the fragments of kernels/mma.cuh do.
template <class S> struct Rows {
  float o[S::kTiles][S::kDim / 8][4] = {};
  float highest[S::kTiles][2];   // score yet, in powers of 2
  float sum[S::kTiles][2] = {};  // of this lane's columns

  // s = q k^T. b is k^T, whose columns are the rows of the tile. q is read again for each tile of keys, as there are no
  // registers to keep it in.
  __device__ static void scores(float (&s)[S::kTiles][S::kKeys / 8][4], const bf16* q_lane, const bf16* k_lane) {
#pragma unroll
    for (int c = 0; c < S::kDim; c += 16) {
      uint32_t a[S::kTiles][4];
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m) ldmatrix_x4(a[m], q_lane + 16 * m * S::kStride + c);
#pragma unroll
      for (int n = 0; n < S::kKeys / 8; n += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, k_lane + 8 * n * S::kStride + c);
#pragma unroll
        for (int m = 0; m < S::kTiles; ++m) {
          mma_m16n8k16_bf16(s[m][n], a[m], b[0], b[1]);
          mma_m16n8k16_bf16(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // s becomes exp(score - highest), and what was summed so far follows the highest.
  __device__ void softmax(float (&s)[S::kTiles][S::kKeys / 8][4], float scale) {
    float factor[S::kTiles][2];
    bool rises = false;
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float most = -INFINITY;
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n) most = fmaxf(most, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        const float now = fmaxf(highest[m][h], scale * quad_max(most));
        // A row that has seen no key yet: -inf - -inf would be NaN.
        const float base = now == -INFINITY ? 0.0f : now;
        factor[m][h] = exp2_approx(highest[m][h] - base);
        rises |= factor[m][h] != 1;
        highest[m][h] = now;
        sum[m][h] *= factor[m][h];
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n)
#pragma unroll
          for (int i = 2 * h; i < 2 * h + 2; ++i) {
            s[m][n][i] = exp2_approx(fmaf(s[m][n][i], scale, -base));
            sum[m][h] += s[m][n][i];
          }
      }
    // After the first tiles it rarely rises, and a factor of 1 changes nothing.
    if (!__any_sync(kAllLanes, rises)) return;
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) o[m][n][i] *= factor[m][i / 2];
  }

  // o += s v, s rounded to bf16. Two tiles of s are one of a; b is v itself, so its columns come transposed.
  __device__ void add_values(const float (&s)[S::kTiles][S::kKeys / 8][4], const bf16* v_lane) {
#pragma unroll
    for (int c = 0; c < S::kKeys / 8; c += 2) {
      uint32_t a[S::kTiles][4];
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[m][i] = pack(s[m][c + i / 2][i % 2 * 2], s[m][c + i / 2][i % 2 * 2 + 1]);
#pragma unroll
      for (int n = 0; n < S::kDim / 8; n += 2) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, v_lane + 8 * c * S::kStride + 8 * n);
#pragma unroll
        for (int m = 0; m < S::kTiles; ++m) {
          mma_m16n8k16_bf16(o[m][n], a[m], b[0], b[1]);
          mma_m16n8k16_bf16(o[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
};

// One block for kRows queries: the same kRows / packed positions of `packed` heads that share a key head, so that each
// tile of keys and values is fetched once for all of them.
//
// What that is worth at kDim = 256: a tile of 64 keys and values has 64 KiB and feeds 128 rows with 8.4 MFLOP. At 3
// TFLOP/s an SM, 400 on an H200, all SMs draw 3 TB/s from L2, of the 5.5 that it gives. 64 rows would need 6. Two heads
// with 64 positions each meet the diagonal in smaller steps than 128 positions of one head: at T = 1024 6 % of the
// products are masked instead of 12 %.
//
// The window is no template parameter: away from its edges, which are tested once a tile, nothing knows of it.
template <class S, bool kCapped>
__global__ void __launch_bounds__(S::kThreads, S::kBlocks) attention_bf16_kernel(Operands x) {
  bf16* q_tile = dynamic_shared<bf16>();
  bf16* kv_tiles = q_tile + S::kRows * S::kStride;  // of a stage: keys, then values

  // The last positions see most keys: their blocks start first, or the others would wait for them in the end.
  const int positions = S::kRows / x.packed, groups = x.heads / x.packed;
  const int all_groups = gridDim.x / ((x.length + positions - 1) / positions);
  const int first = (gridDim.x - 1 - blockIdx.x) / all_groups * positions;
  const int sequence = blockIdx.x % all_groups / groups, head = blockIdx.x % groups * x.packed;

  const int matrix = x.length * x.size;
  const bf16* q = x.q + (int64_t(sequence) * x.heads + head) * matrix;
  const int64_t kv = (int64_t(sequence) * x.kv_heads + head / (x.heads / x.kv_heads)) * matrix;
  const bf16 *k = x.k + kv, *v = x.v + kv;
  const auto load_keys = [&](int tile) {
    load_rows<S, S::kKeys, 2>(kv_tiles + tile % 2 * S::kStage, x.size, [&](int t, int r) {
      const int key = tile * S::kKeys + r;
      return Source{(t == 0 ? k : v) + min(key, x.length - 1) * x.size, key < x.length};
    });
    cp_async_commit();
  };

  // This warp's rows are at consecutive positions of one head.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row = warp * S::kWarpRows;
  const int warp_head = head + warp_row / positions, warp_first = first + warp_row % positions;
  const int warp_last = warp_first + S::kWarpRows - 1;

  // Where this lane points ldmatrix: row r of the 8 x 8 matrix (y, x) of a 2 x 2 arrangement.
  const int r = lane % 8, y8 = lane / 8 % 2 * 8, x8 = lane / 16 * 8;
  bf16* warp_q = q_tile + warp_row * S::kStride;
  const bf16* q_lane = warp_q + (y8 + r) * S::kStride + x8;
  const bf16* k_lane = kv_tiles + (x8 + r) * S::kStride + y8;
  const bf16* v_lane = kv_tiles + (S::kKeys + y8 + r) * S::kStride + x8;

  Rows<S> rows;
#pragma unroll
  for (int m = 0; m < S::kTiles; ++m) rows.highest[m][0] = rows.highest[m][1] = -INFINITY;

  // Tiles that some query of the block sees
  const int begin = max(0, first - x.window + 1) / S::kKeys;
  const int end = (min(first + positions, x.length) + S::kKeys - 1) / S::kKeys;
  load_rows<S, S::kRows, 1>(q_tile, x.size, [&](int, int i) {
    const int position = first + i % positions;
    return Source{q + int64_t(i / positions) * matrix + min(position, x.length - 1) * x.size, position < x.length};
  });
  load_keys(begin);

  for (int tile = begin; tile < end; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // the tile is there, also what other threads copied, and nobody reads the one before any more
    if (tile + 1 < end) load_keys(tile + 1);

    const int key = tile * S::kKeys;
    // all of the tile is later than the warp's queries, or has left their windows, or there are no queries
    if (key > warp_last || key + S::kKeys - 1 <= warp_first - x.window || warp_first >= x.length) continue;

    float s[S::kTiles][S::kKeys / 8][4] = {};
    const int stage = tile % 2 * S::kStage;
    Rows<S>::scores(s, q_lane, k_lane + stage);

    if constexpr (kCapped) {
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) s[m][n][i] = tanh_approx(x.inside * s[m][n][i]);
    }
    if (key + S::kKeys - 1 > warp_first || key <= warp_last - x.window) {
#pragma unroll
      for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
        for (int n = 0; n < S::kKeys / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int back = warp_first + 16 * m + lane / 4 + i / 2 * 8 - (key + 8 * n + 2 * (lane % 4) + i % 2);
            // the last key is at back = 0, the first at window - 1; what comes later wraps to a large number
            if (static_cast<unsigned>(back) >= static_cast<unsigned>(x.window)) s[m][n][i] = -INFINITY;
          }
    }

    rows.softmax(s, x.scale);
    rows.add_values(s, v_lane + stage);
  }

#pragma unroll
  for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float inverse = 1.0f / quad_sum(rows.sum[m][h]);
#pragma unroll
      for (int n = 0; n < S::kDim / 8; ++n) rows.o[m][n][2 * h] *= inverse, rows.o[m][n][2 * h + 1] *= inverse;
    }
  const int64_t token = int64_t(x.heads) * x.size;  // of out: all heads
  const int64_t at = (int64_t(sequence) * x.length + warp_first) * token + int64_t(warp_head) * x.size;
  const int rows_left = x.length - warp_first;
  if (x.narrow) {
    // Through the shared memory of this warp's queries, which nobody else reads: then a row's chunks of 16 bytes are
    // stored side by side.
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int n = 0; n < S::kDim / 8; ++n)
          *reinterpret_cast<uint32_t*>(warp_q + (16 * m + 8 * h + lane / 4) * S::kStride + 8 * n + 2 * (lane % 4)) =
              pack(rows.o[m][n][2 * h], rows.o[m][n][2 * h + 1]);
    __syncwarp();
    bf16* out = static_cast<bf16*>(x.out) + at;
    constexpr int kChunks = S::kDim / 8;
    for (int i = lane; i < S::kWarpRows * kChunks; i += 32) {
      const int row = i / kChunks, c = i % kChunks * 8;
      if (row < rows_left && c < x.size)
        *reinterpret_cast<uint4*>(out + row * token + c) =
            *reinterpret_cast<const uint4*>(warp_q + row * S::kStride + c);
    }
  } else {  // the four lanes of a row fill a sector of 32 bytes
    float* out = static_cast<float*>(x.out) + at;
#pragma unroll
    for (int m = 0; m < S::kTiles; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = 16 * m + 8 * h + lane / 4;
        if (row >= rows_left) continue;
#pragma unroll
        for (int n = 0; n < S::kDim / 8; ++n)
          if (8 * n < x.size)
            *reinterpret_cast<float2*>(out + row * token + 8 * n + 2 * (lane % 4)) =
                make_float2(rows.o[m][n][2 * h], rows.o[m][n][2 * h + 1]);
      }
  }
}

}  // namespace

void attention_bf16(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& o,
                    int64_t shared_bytes) {
  const int64_t length = q.dim[2], size = q.dim[3], share = q.dim[1] / k.dim[1];
  CHECK(length * size <= INT_MAX, "attention: cuda wants bf16 heads below 4 GiB, not " + describe(q));
  CHECK(size % 8 == 0, "attention: cuda wants bf16 heads of a multiple of 8 elements, not " + describe(q));
  constexpr float kLog2E = 1.44269504f;
  const Operands x{.out = out.ptr,
                   .narrow = out.dtype == DType::kBF16,
                   .q = device_data<bf16>(q),
                   .k = device_data<bf16>(k),
                   .v = device_data<bf16>(v),
                   .length = static_cast<int>(length),
                   .size = static_cast<int>(size),
                   .heads = static_cast<int>(q.dim[1]),
                   .kv_heads = static_cast<int>(k.dim[1]),
                   .packed = share % 2 == 0 ? 2 : 1,
                   .window = static_cast<int>(o.window > 0 ? std::min(o.window, length) : length),
                   .inside = o.softcap > 0 ? o.scale / o.softcap : 0,
                   .scale = (o.softcap > 0 ? o.softcap : o.scale) * kLog2E};
  const auto run = [&]<class S>(S) {
    const int64_t positions = S::kRows / x.packed, tiles = (length + positions - 1) / positions;
    launch(o.softcap > 0 ? attention_bf16_kernel<S, true> : attention_bf16_kernel<S, false>,
           Grid(q.dim[0] * q.dim[1] / x.packed * tiles), S::kThreads, S::kSharedBytes, ctx.cuda().stream, x);
  };
  using Wide = Shape<256, 1, 8, 64>;    // 198 KiB: sm_90, sm_100
  using Middle = Shape<256, 1, 8, 32>;  // 132 KiB: sm_80
  using Small = Shape<256, 1, 4, 32>;   // 99 KiB, all that sm_86, sm_89 and sm_120 have
  static_assert(Small::kSharedBytes <= 99 << 10 && Middle::kSharedBytes <= 163 << 10);
  if (size <= 64) run(Shape<64, 2, 4, 64>{});
  else if (size <= 128) run(Shape<128, 2, 4, 32>{});
  else if (Wide::kSharedBytes <= shared_bytes) run(Wide{});
  else if (Middle::kSharedBytes <= shared_bytes) run(Middle{});
  else run(Small{});
}

}  // namespace gsae::cuda
