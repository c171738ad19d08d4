#include <algorithm>
#include <bit>

#include "kernels/entries.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"

namespace gsae::cuda {
namespace {

// The sum over the threads before this one, and in `total` over all, in every thread. Once in a kernel: a second call
// would have to wait until of_warp is read.
template <int kWarps> __device__ int32_t block_sum_before(int32_t x, int32_t& total) {
  __shared__ int32_t of_warp[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int32_t sum = x;
  for (int step = 1; step < 32; step *= 2) {
    const int32_t before = __shfl_up_sync(kAllLanes, sum, step);
    if (lane >= step) sum += before;
  }
  if (lane == 31) of_warp[warp] = sum;
  __syncthreads();
  total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) sum += total;
    total += of_warp[w];
  }
  return sum - x;
}

// Selection: a block owns a part of kPart rows of a latent, a thread 32 consecutive ones as bits of a word. Parts are
// numbered in the order of the lists.
constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kPart = 32 * kThreads;
constexpr int kUnderWay = 8;          // loads of a thread
constexpr int64_t kMostParts = 8192;  // of one launch: a block adds up the counts of all before it

// 12 blocks: as many threads as the smallest SM has.
__global__ void __launch_bounds__(kThreads, 12)
    mark_entries_kernel(uint32_t* marks, int32_t* counts, const float* __restrict__ zt, const float* b_enc,
                        const float* theta, float half, int64_t n, int parts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t latent = blockIdx.x / parts, begin = int64_t{kPart} * (blockIdx.x % parts) + 32 * 32 * warp;
  const int rows = static_cast<int>(min(int64_t{32 * 32}, n - begin));  // of this warp; there may be none
  const float bias = b_enc[latent], least = theta[latent] - half;
  zt += latent * n + begin + lane;
  uint32_t mine = 0;
  for (int word = 0; 32 * word < rows; word += kUnderWay) {
    float z[kUnderWay];
#pragma unroll
    for (int k = 0; k < kUnderWay; ++k) z[k] = 32 * (word + k) + lane < rows ? zt[32 * (word + k)] : -HUGE_VALF;
#pragma unroll
    for (int k = 0; k < kUnderWay; ++k) {
      const bool inside = 32 * (word + k) + lane < rows;
      const uint32_t of_word = __ballot_sync(kAllLanes, inside && !(z[k] + bias <= least));
      if (lane == word + k) mine = of_word;
    }
  }
  marks[int64_t(blockIdx.x) * kThreads + threadIdx.x] = mine;
  const int32_t count = block_sum<kWarps>(__popc(mine));
  if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

// begin: of the first latent here, which is where the one before it ended.
__global__ void __launch_bounds__(kThreads)
    list_entries_kernel(int32_t* begin, int32_t* rows, int32_t* owners, float* values, int64_t* count,
                        const uint32_t* marks, const int32_t* counts, const float* __restrict__ zt, const float* b_enc,
                        int64_t n, int parts, int64_t capacity, int64_t first) {
  __shared__ uint16_t list[kPart];  // from the part's first row
  const int64_t latent = blockIdx.x / parts, start = begin[0];
  uint32_t mine = marks[int64_t(blockIdx.x) * kThreads + threadIdx.x];
  int32_t before = 0;
#pragma unroll 8
  for (int p = threadIdx.x; p < static_cast<int>(blockIdx.x); p += kThreads) before += counts[p];
  before = block_sum<kWarps>(before);
  int32_t total;
  int32_t at = block_sum_before<kWarps>(__popc(mine), total);
  for (; mine != 0; mine &= mine - 1) list[at++] = static_cast<uint16_t>(32 * threadIdx.x + __ffs(mine) - 1);
  __syncthreads();

  const int64_t from = start + before, to = min(from + total, capacity);
  const int64_t row = int64_t{kPart} * (blockIdx.x % parts);
  const float bias = b_enc[latent];
  zt += latent * n + row;
  for (int64_t p = from + threadIdx.x; p < to; p += kThreads) {
    const int r = list[p - from];
    rows[p] = static_cast<int32_t>(row + r);
    owners[p] = static_cast<int32_t>(first + latent);
    values[p] = zt[r] + bias;
  }
  if (threadIdx.x > 0) return;
  if ((blockIdx.x + 1) % parts == 0) begin[latent + 1] = static_cast<int32_t>(to);
  if (blockIdx.x + 1 == gridDim.x) *count += before + total;
}

// Sort: by digits of the row of at most 8 bits, from the lowest, each pass stable. What is sorted are places in the
// lists by latent. A block owns a chunk of them, whole pieces of kPiece but for the last.
constexpr int kSortWarps = 8, kSortThreads = 32 * kSortWarps;
constexpr int kMostDigits = 256;
constexpr int kSteps = 8;  // places of a thread in a piece
constexpr int kPiece = kSteps * kSortThreads;
constexpr int kMostChunks = 4 * kSortThreads;
static_assert(kMostDigits <= kSortThreads, "a digit for each thread");

struct SortPass {
  const int32_t *row, *from;  // from: places as the pass before left them; none: in order
  const int64_t* count;
  int64_t capacity, chunk;
  int shift, digits;

  __device__ int64_t size() const { return min(*count, capacity); }
  __device__ int32_t place(int64_t k) const { return from ? from[k] : static_cast<int32_t>(k); }
  __device__ int digit(int32_t place) const { return row[place] >> shift & (digits - 1); }
};

// counts (digits, chunks): those of chunks that are empty are not written.
__global__ void __launch_bounds__(kSortThreads) count_digits_kernel(int32_t* counts, SortPass pass) {
  __shared__ int32_t of_digit[kMostDigits];
  const int64_t begin = blockIdx.x * pass.chunk, end = min(begin + pass.chunk, pass.size());
  if (begin >= end) return;
  for (int d = threadIdx.x; d < pass.digits; d += kSortThreads) of_digit[d] = 0;
  __syncthreads();
#pragma unroll 8
  for (int64_t k = begin + threadIdx.x; k < end; k += kSortThreads) atomicAdd(&of_digit[pass.digit(pass.place(k))], 1);
  __syncthreads();
  for (int d = threadIdx.x; d < pass.digits; d += kSortThreads)
    counts[int64_t{gridDim.x} * d + blockIdx.x] = of_digit[d];
}

// A block for each digit: its counts become sums over the chunks before, totals (digits) those over all.
__global__ void __launch_bounds__(kSortThreads)
    add_chunks_kernel(int32_t* counts, int32_t* totals, SortPass pass, int chunks) {
  constexpr int kEach = kMostChunks / kSortThreads;
  const int filled = static_cast<int>((pass.size() + pass.chunk - 1) / pass.chunk);
  const int first = kEach * threadIdx.x;
  counts += int64_t{chunks} * blockIdx.x;
  int32_t count[kEach], sum = 0, total;
  for (int i = 0; i < kEach; ++i) sum += count[i] = first + i < filled ? counts[first + i] : 0;
  int32_t before = block_sum_before<kSortWarps>(sum, total);
  for (int i = 0; i < kEach; ++i) {
    if (first + i < filled) counts[first + i] = before;
    before += count[i];
  }
  if (threadIdx.x == 0) totals[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kSortThreads)
    move_places_kernel(int32_t* to, const int32_t* counts, const int32_t* totals, SortPass pass) {
  // of each warp, first how many it has met, then where its first goes
  __shared__ int32_t of_digit[kSortWarps][kMostDigits];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t begin = blockIdx.x * pass.chunk, end = min(begin + pass.chunk, pass.size());
  if (begin >= end) return;
  const int mine = static_cast<int>(threadIdx.x);  // the digit that this thread keeps account of
  int32_t all;
  int32_t next = block_sum_before<kSortWarps>(mine < pass.digits ? totals[mine] : 0, all);
  if (mine < pass.digits) next += counts[int64_t{gridDim.x} * mine + blockIdx.x];

  for (int64_t piece = begin; piece < end; piece += kPiece) {
    for (int d = lane; d < pass.digits; d += 32) of_digit[warp][d] = 0;
    const int64_t k = piece + 32 * kSteps * warp + lane;  // then every 32nd
    int32_t place[kSteps], rank[kSteps];
    int digit[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) place[s] = k + 32 * s < end ? pass.place(k + 32 * s) : -1;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) digit[s] = place[s] >= 0 ? pass.digit(place[s]) : kMostDigits;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t same = __match_any_sync(kAllLanes, digit[s]), before = same & ((1u << lane) - 1);
      const int32_t met = place[s] >= 0 ? of_digit[warp][digit[s]] : 0;
      __syncwarp();  // all have read
      if (place[s] >= 0 && before == 0) of_digit[warp][digit[s]] = met + __popc(same);
      __syncwarp();
      rank[s] = met + __popc(before);
    }
    __syncthreads();
    for (int w = 0; mine < pass.digits && w < kSortWarps; ++w) {
      const int32_t met = of_digit[w][mine];
      of_digit[w][mine] = next;
      next += met;
    }
    __syncthreads();
#pragma unroll
    for (int s = 0; s < kSteps; ++s)
      if (place[s] >= 0) to[of_digit[warp][digit[s]] + rank[s]] = place[s];
    __syncthreads();  // before of_digit is used again
  }
}

// place: sorted by row. A thread for each, and one for the end: it writes the begin of all rows that begin there.
__global__ void __launch_bounds__(kSortThreads)
    finish_rows_kernel(int32_t* row_begin, int32_t* latent, const int32_t* place, const int32_t* row,
                       const int32_t* owner, const int64_t* count, int64_t capacity, int64_t n) {
  const int64_t k = int64_t(blockIdx.x) * kSortThreads + threadIdx.x, size = min(*count, capacity);
  if (k > size) return;
  const int64_t after = k > 0 ? row[place[k - 1]] + 1 : 0, last = k < size ? row[place[k]] : n;
  for (int64_t r = after; r <= last; ++r) row_begin[r] = static_cast<int32_t>(k);
  if (k < size) latent[k] = owner[place[k]];
}

__global__ void __launch_bounds__(kSortThreads)
    count_entries_kernel(int32_t* fired, const int32_t* begin, int64_t latents) {
  const int64_t i = int64_t(blockIdx.x) * kSortThreads + threadIdx.x;
  if (i < latents) fired[i] += begin[i + 1] - begin[i];
}

}  // namespace

void clear_entries(Context& ctx, const Entries& e) {
  const Range range("clear_entries");
  CUDA_CHECK(cudaMemsetAsync(e.count.data<int64_t>(), 0, sizeof(int64_t), ctx.cuda().stream));
  CUDA_CHECK(cudaMemsetAsync(e.begin.data<int32_t>(), 0, sizeof(int32_t), ctx.cuda().stream));
}

void select_entries(Context& ctx, const Entries& e, Tensor zt, Tensor b_enc, Tensor theta, float half, int64_t first) {
  const Range range("select_entries");
  const int64_t latents = zt.dim[0], n = zt.dim[1], parts = (n + kPart - 1) / kPart;
  const int64_t at_once = kMostParts / parts;
  static_assert(Entries::kMostRows <= kMostParts * kPart, "a latent at least");
  uint32_t* marks = workspace<uint32_t>(ctx, kMostParts * (kThreads + 1));
  int32_t* counts = reinterpret_cast<int32_t*>(marks + kMostParts * kThreads);
  for (int64_t i = 0; i < latents; i += at_once) {
    const int64_t blocks = std::min(at_once, latents - i) * parts;
    const float *z = zt.data<float>() + i * n, *b = b_enc.data<float>() + i, *t = theta.data<float>() + i;
    launch(mark_entries_kernel, blocks, kThreads, 0, ctx.cuda().stream, marks, counts, z, b, t, half, n,
           static_cast<int>(parts));
    launch(list_entries_kernel, blocks, kThreads, 0, ctx.cuda().stream, e.begin.data<int32_t>() + first + i,
           e.row.data<int32_t>(), e.owner.data<int32_t>(), e.z.data<float>(), e.count.data<int64_t>(), marks, counts, z,
           b, n, static_cast<int>(parts), e.capacity(), first + i);
  }
}

void transpose_entries(Context& ctx, const Entries& e) {
  const Range range("transpose_entries");
  const cudaStream_t stream = ctx.cuda().stream;
  const int64_t capacity = e.capacity(), n = e.batch();
  const int64_t pieces = (capacity + kPiece - 1) / kPiece, each = (pieces + kMostChunks - 1) / kMostChunks;
  const int64_t chunks = (pieces + each - 1) / each;
  const int bits = std::max(1, static_cast<int>(std::bit_width(static_cast<uint64_t>(n - 1))));
  const int passes = (bits + 7) / 8, width = (bits + passes - 1) / passes;
  int32_t* counts = workspace<int32_t>(ctx, kMostDigits * (kMostChunks + 1));
  int32_t* totals = counts + kMostDigits * kMostChunks;
  int32_t *row = e.row.data<int32_t>(), *place = e.place.data<int32_t>(), *latent = e.latent.data<int32_t>();

  SortPass pass{.row = row,
                .from = nullptr,
                .count = e.count.data<int64_t>(),
                .capacity = capacity,
                .chunk = each * kPiece,
                .shift = 0,
                .digits = 1 << width};
  for (int left = passes - 1; left >= 0; --left) {
    int32_t* to = left % 2 == 0 ? place : latent;  // the last one's are places, and latents are not there yet
    launch(count_digits_kernel, chunks, kSortThreads, 0, stream, counts, pass);
    launch(add_chunks_kernel, pass.digits, kSortThreads, 0, stream, counts, totals, pass, static_cast<int>(chunks));
    launch(move_places_kernel, chunks, kSortThreads, 0, stream, to, counts, totals, pass);
    pass.from = to;
    pass.shift += width;
  }
  launch(finish_rows_kernel, (capacity + kSortThreads) / kSortThreads, kSortThreads, 0, stream,
         e.row_begin.data<int32_t>(), latent, place, row, e.owner.data<int32_t>(), e.count.data<int64_t>(), capacity,
         n);
}

void count_entries(Context& ctx, Tensor fired, const Entries& e) {
  const Range range("count_entries");
  launch(count_entries_kernel, (e.latents() + kSortThreads - 1) / kSortThreads, kSortThreads, 0, ctx.cuda().stream,
         fired.data<int32_t>(), e.begin.data<int32_t>(), e.latents());
}

}  // namespace gsae::cuda
