#include <algorithm>

#include "kernels/attention_cuda.h"
#include "kernels/launch.h"
#include "kernels/mma.cuh"
#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

// A block has kRows queries and meets kKeys keys at a time. A thread computes 4 x 4 of their scores (four rows side by
// side; of the keys every 16th) and 4 rows of the result (of the columns 4 in every 64).
//
// Keys come in pieces of kColumns columns, values in pieces of kValues rows, each copied while the one before is in
// use. Per 64 FMAs a thread reads 8 times 16 bytes of keys' pieces and 5 of values': shared memory's 128 bytes a clock
// give at least half of the peak in the former and four fifths in the latter.
constexpr int kRows = 32, kKeys = 64, kColumns = 32, kValues = 16;
constexpr int kThreads = 128;

// kDim: of a head, its last columns zeros.
template <int kDim> struct Layout {
  static constexpr int kQueryStride = kDim + 4;    // (kRows, kDim)
  static constexpr int kWeightStride = kRows + 4;  // (kKeys, kRows)
  static constexpr int kKeyStride = kColumns + 4;  // (kKeys, kColumns): 8 keys in different banks
  static constexpr int kPiece = kDim > 128 ? kValues* kDim : kKeys* kKeyStride;  // the larger of the two
  static constexpr int kWeights = kRows * kQueryStride, kPieces = kWeights + kKeys * kWeightStride;
  static constexpr size_t kSharedBytes = (kPieces + 2 * kPiece) * sizeof(float);
  static_assert(kPiece >= kValues * kDim && kPiece >= kKeys * kKeyStride);
};

struct Operands {
  void* out;
  bool narrow;  // out is bf16
  const float *q, *k, *v;
  int length, size, heads, kv_heads;
  int window;  // 1 to length
  float scale, softcap;
};

// to[r][c] = x[begin + r][column + c] for r < kCount, c < kWidth; zeros beyond its rows and columns. kVector: its rows
// are 16-byte aligned, and the copy is only started.
template <int kCount, int kWidth, int kStride, bool kVector>
__device__ void load_piece(float* to, const float* x, int begin, int rows, int column, int columns) {
#pragma unroll 4
  for (int i = 4 * threadIdx.x; i < kCount * kWidth; i += 4 * kThreads) {
    const int r = i / kWidth, c = i % kWidth;
    const bool row_there = begin + r < rows;
    const float* row = x + int64_t(row_there ? begin + r : 0) * columns;
    if constexpr (kVector) {
      const bool valid = row_there && column + c < columns;
      cp_async_16(to + r * kStride + c, row + (valid ? column + c : 0), valid);
    } else {
      for (int e = c; e < c + 4; ++e) to[r * kStride + e] = row_there && column + e < columns ? row[column + e] : 0.0f;
    }
  }
}

// Over the 16 threads that share rows.
__device__ float row_max(float x) {
  for (int lane = 8; lane > 0; lane /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
  return x;
}
__device__ float row_sum(float x) {
  for (int lane = 8; lane > 0; lane /= 2) x += __shfl_xor_sync(kAllLanes, x, lane);
  return x;
}

template <int kDim, bool kVector>
__global__ void __launch_bounds__(kThreads, kVector ? 3 : 2) attention_f32_kernel(Operands x) {
  using L = Layout<kDim>;
  float* queries = dynamic_shared<float>();
  float* weights = queries + L::kWeights;
  float* pieces = queries + L::kPieces;

  // The last positions see most keys: their blocks start first, or the others would wait for them in the end.
  const int matrices = gridDim.x / ((x.length + kRows - 1) / kRows);  // B * Hq
  const int first = (gridDim.x - 1 - blockIdx.x) / matrices * kRows;
  const int sequence = blockIdx.x % matrices / x.heads, head = blockIdx.x % x.heads;
  const int64_t matrix = int64_t(x.length) * x.size;
  const float* q = x.q + (int64_t(sequence) * x.heads + head) * matrix;
  const int64_t kv = (int64_t(sequence) * x.kv_heads + head / (x.heads / x.kv_heads)) * matrix;

  // This thread's rows are row to row + 3, its keys column + 16 j, its columns of the result 64 j + 4 column + e.
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16;

  const int begin = max(0, first - x.window + 1) / kKeys;
  const int end = (min(first + kRows, x.length) + kKeys - 1) / kKeys;
  const int key_pieces = (x.size + kColumns - 1) / kColumns, tile_pieces = key_pieces + kKeys / kValues;
  int piece = 0;  // in use; counted over all tiles
  const auto start = [&](int n) {
    if (n >= (end - begin) * tile_pieces) return;
    const int key = (begin + n / tile_pieces) * kKeys, part = n % tile_pieces;
    float* to = pieces + n % 2 * L::kPiece;
    if (part < key_pieces)
      load_piece<kKeys, kColumns, L::kKeyStride, kVector>(to, x.k + kv, key, x.length, part * kColumns, x.size);
    else
      load_piece<kValues, kDim, kDim, kVector>(to, x.v + kv, key + (part - key_pieces) * kValues, x.length, 0, x.size);
    cp_async_commit();
  };
  const auto next = [&] {
    cp_async_wait<0>();
    __syncthreads();  // the piece is there, and nobody reads the one before, nor the weights of the tile before
    const float* here = pieces + piece % 2 * L::kPiece;
    start(++piece);
    return here;
  };
  load_piece<kRows, kDim, L::kQueryStride, kVector>(queries, q, first, x.length, 0, x.size);
  start(0);

  float o[4][kDim / 64][4] = {};
  float highest[4], sum[4] = {};  // sum: of this thread's keys
  for (int i = 0; i < 4; ++i) highest[i] = -INFINITY;

  for (int tile = begin; tile < end; ++tile) {
    float s[4][4] = {};
    for (int part = 0; part < key_pieces; ++part) {
      const float* keys = next();
#pragma unroll
      for (int c = 0; c < kColumns; c += 4) {
        float a[4][4], b[4][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          load_row<4>(a[i], queries + (row + i) * L::kQueryStride + part * kColumns + c);
          load_row<4>(b[i], keys + (column + 16 * i) * L::kKeyStride + c);
        }
#pragma unroll
        for (int e = 0; e < 4; ++e)
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) s[i][j] = fmaf(a[i][e], b[j][e], s[i][j]);
      }
    }

#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float most = highest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] *= x.scale;
        if (x.softcap > 0) s[i][j] = x.softcap * tanhf(s[i][j] / x.softcap);
        const int back = first + row + i - (tile * kKeys + column + 16 * j);
        // the last key is at back = 0, the first at window - 1; what comes later wraps to a large number
        if (static_cast<unsigned>(back) >= static_cast<unsigned>(x.window)) s[i][j] = -INFINITY;
        most = fmaxf(most, s[i][j]);
      }
      most = row_max(most);
      // A row that has seen no key yet: -inf - -inf would be NaN.
      const float base = most == -INFINITY ? 0.0f : most;
      const float factor = expf(highest[i] - base);
      highest[i] = most;
      sum[i] *= factor;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] = expf(s[i][j] - base);
        sum[i] += s[i][j];
      }
#pragma unroll
      for (int j = 0; j < kDim / 64; ++j)
        for (int e = 0; e < 4; ++e) o[i][j][e] *= factor;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float one_key[4] = {s[0][j], s[1][j], s[2][j], s[3][j]};
      store_row<4>(weights + (column + 16 * j) * L::kWeightStride + row, one_key);
    }

    for (int part = 0; part < kKeys / kValues; ++part) {
      const float* values = next();
#pragma unroll 4
      for (int key = 0; key < kValues; ++key) {
        float p[4];
        load_row<4>(p, weights + (part * kValues + key) * L::kWeightStride + row);
#pragma unroll
        for (int j = 0; j < kDim / 64; ++j) {
          float y[4];
          load_row<4>(y, values + key * kDim + 64 * j + 4 * column);
#pragma unroll
          for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) o[i][j][e] = fmaf(p[i], y[e], o[i][j][e]);
        }
      }
    }
  }

  const auto store = [&]<class Out>(Out* out) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float inverse = 1.0f / row_sum(sum[i]);
      if (first + row + i >= x.length) continue;
      Out* to = out + ((int64_t(sequence) * x.length + first + row + i) * x.heads + head) * x.size;
#pragma unroll
      for (int j = 0; j < kDim / 64; ++j) {
        const int c = 64 * j + 4 * column;
        for (int e = 0; e < 4; ++e) o[i][j][e] *= inverse;
        if constexpr (kVector) {
          if (c < x.size) store_row<4>(to + c, o[i][j]);
        } else {
          for (int e = 0; e < 4; ++e)
            if (c + e < x.size) to[c + e] = static_cast<Out>(o[i][j][e]);
        }
      }
    }
  };
  if (x.narrow) store(static_cast<__nv_bfloat16*>(x.out));
  else store(static_cast<float*>(x.out));
}

}  // namespace

void attention_f32(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& o) {
  const int64_t length = q.dim[2], size = q.dim[3];
  const Operands x{.out = out.ptr,
                   .narrow = out.dtype == DType::kBF16,
                   .q = q.data<float>(),
                   .k = k.data<float>(),
                   .v = v.data<float>(),
                   .length = static_cast<int>(length),
                   .size = static_cast<int>(size),
                   .heads = static_cast<int>(q.dim[1]),
                   .kv_heads = static_cast<int>(k.dim[1]),
                   .window = static_cast<int>(o.window > 0 ? std::min(o.window, length) : length),
                   .scale = o.scale,
                   .softcap = o.softcap};
  const auto run = [&]<int kDim>() {
    launch(size % 4 == 0 ? attention_f32_kernel<kDim, true> : attention_f32_kernel<kDim, false>,
           Grid(q.dim[0] * q.dim[1] * ((length + kRows - 1) / kRows)), kThreads, Layout<kDim>::kSharedBytes,
           ctx.cuda().stream, x);
  };
  if (size <= 64) run.operator()<64>();
  else if (size <= 128) run.operator()<128>();
  else run.operator()<256>();
}

}  // namespace gsae::cuda
