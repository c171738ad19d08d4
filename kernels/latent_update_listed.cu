#include "kernels/latent_update.cuh"
#include "kernels/partial_sums.cuh"

namespace gsae::cuda {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kFewestHeavy = 256;  // entries of a latent that are no work for one team any more, or more than that

// Gradients from entries.
template <class T> struct Listed {
  const int32_t *begin, *row;
  const float *z, *df, *threshold, *dl0;
  const T *dx, *centred;
  float *db, *dtheta;  // (F)
  int32_t* fired;
  // A latent with more than `most` entries is heavy. It has the slot begin[i] / most, which no other has.
  int32_t* heavy;     // (slots): the latent, or -1
  float* heavy_rows;  // (slots, 2, d): the gradients of W_enc and W_dec
  int most;

  __device__ int entries(int64_t i) const { return begin[i + 1] - begin[i]; }
  __device__ bool has(int64_t i) const { return entries(i) > 0; }
  __device__ float b(int64_t i) const { return db[i]; }
  __device__ float theta(int64_t i) const { return dtheta[i]; }
  __device__ float* rows_of(int slot, int d) const { return heavy_rows + int64_t(slot) * 2 * d; }

  template <int kVectors, int kWide>
  __device__ void rows(float (&enc)[kVectors][kWide], float (&dec)[kVectors][kWide], int64_t i, int column, int step,
                       int d) const {
    if (entries(i) <= most)
      return gather < kVectors < 3 ? 4 : 2 > (enc, dec, i, begin[i], begin[i + 1], column, step, d);
    const float* sums = rows_of(begin[i] / most, d);
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      const int c = column + k * step;
#pragma unroll
      for (int j = 0; j < kWide; ++j) enc[k][j] = dec[k][j] = 0;
      if (c >= d) continue;
      load_row(enc[k], sums + c);
      load_row(dec[k], sums + d + c);
    }
  }

  // The sums over latent i's entries in the places [from, to). What is not needed is read too, where something is sure
  // to be, and counts for nothing: loads that hang on a comparison would wait for one another. kAtOnce: entries under
  // way.
  template <int kAtOnce, int kVectors, int kWide>
  __device__ void gather(float (&enc)[kVectors][kWide], float (&dec)[kVectors][kWide], int64_t i, int from, int to,
                         int column, int step, int d) const {
    const float t = threshold[i];
    int at_column[kVectors];
#pragma unroll
    for (int k = 0; k < kVectors; ++k) {
      at_column[k] = column + k * step < d ? column + k * step : 0;
#pragma unroll
      for (int j = 0; j < kWide; ++j) enc[k][j] = dec[k][j] = 0;
    }
    for (int at = from; at < to; at += kAtOnce) {
      float x[kAtOnce][kVectors][kWide], g[kAtOnce][kVectors][kWide], dz[kAtOnce], f[kAtOnce];
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e) {
        const int place = min(at + e, to - 1);
        const bool on = at + e < to && !(z[place] <= t);  // NaN is on, and shows
        dz[e] = on ? static_cast<float>(static_cast<T>(df[place])) : 0;
        f[e] = on ? static_cast<float>(static_cast<T>(z[place])) : 0;
        const T *x_row = centred + int64_t(row[place]) * d, *g_row = dx + int64_t(row[place]) * d;
#pragma unroll
        for (int k = 0; k < kVectors; ++k) {
          load_row(x[e][k], x_row + at_column[k]);
          load_row(g[e][k], g_row + at_column[k]);
        }
      }
#pragma unroll
      for (int e = 0; e < kAtOnce; ++e)
#pragma unroll
        for (int k = 0; k < kVectors; ++k)
#pragma unroll
          for (int j = 0; j < kWide; ++j) enc[k][j] += dz[e] * x[e][k][j], dec[k][j] += f[e] * g[e][k][j];
    }
#pragma unroll
    for (int k = 0; k < kVectors; ++k)
#pragma unroll
      for (int j = 0; j < kWide; ++j)
        if (column + k * step >= d) enc[k][j] = dec[k][j] = 0;
  }
};

// A warp for each latent: the sums of its elements. Those of latents without entries are zero.
constexpr int kElementThreads = 256;
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    sum_elements_kernel(Listed<T> l, int64_t latents, float half, float scale) {
  const int64_t i = int64_t(blockIdx.x) * (kElementThreads / 32) + threadIdx.x / 32;
  if (i >= latents) return;
  const int begin = l.begin[i], end = l.begin[i + 1], lane = threadIdx.x % 32;
  float b = 0, theta = 0;
  int fired = 0;
  if (begin < end) {  // for the whole warp
    const float t = l.threshold[i];
    for (int k = begin + lane; k < end; k += 32) {
      const float z = l.z[k], df = l.df[k];
      if (fabsf(z - t) < half) theta += t * df + l.dl0[l.row[k]];
      if (z <= t) continue;  // NaN is on, and shows
      b += df;
      ++fired;
    }
    b = warp_sum(b), theta = warp_sum(theta), fired = warp_sum(fired);
  }
  if (lane != 0) return;
  l.db[i] = b, l.dtheta[i] = scale * theta, l.fired[i] = fired;
  if (end - begin > l.most) l.heavy[begin / l.most] = static_cast<int32_t>(i);
}

// partial[blockIdx.x] (d) = sum of db[i] W_enc[i] over a chunk of latents; a thread owns kWide columns.
constexpr int kPullThreads = 32, kPullAtOnce = 8;
template <int kWide>
__global__ void __launch_bounds__(kPullThreads)
    pull_kernel(float* partial, const float* db, const float* W_enc, int64_t latents, int chunk, int d) {
  __shared__ float weights[kPullThreads];
  const int64_t first = int64_t(blockIdx.x) * chunk, last = min(first + chunk, latents);
  const int column = (static_cast<int>(blockIdx.y) * kPullThreads + static_cast<int>(threadIdx.x)) * kWide;
  float sum[kWide] = {};
  for (int64_t base = first; base < last; base += kPullThreads) {
    __syncthreads();  // all have read the weights before
    weights[threadIdx.x] = base + threadIdx.x < last ? db[base + threadIdx.x] : 0;
    __syncthreads();
    for (int k = 0; k < kPullThreads; k += kPullAtOnce) {
      float row[kPullAtOnce][kWide] = {};
#pragma unroll
      for (int t = 0; t < kPullAtOnce; ++t)
        if (column < d && weights[k + t] != 0) load_row(row[t], W_enc + (base + k + t) * d + column);
#pragma unroll
      for (int t = 0; t < kPullAtOnce; ++t)
#pragma unroll
        for (int j = 0; j < kWide; ++j) sum[j] += weights[k + t] * row[t][j];
    }
  }
  if (column < d) store_row(partial + int64_t(blockIdx.x) * d + column, sum);
}

// The gradients of the heavy latents in the slots blockIdx.x, blockIdx.x + gridDim.x, ..., of which most are empty, for
// a stripe of 32 * kWide columns: every warp adds up one segment of the entries, then the segments are added in their
// order.
constexpr int kHeavyWarps = 16, kHeavyBlocks = 128;
template <class T, int kWide>
__global__ void __launch_bounds__(32 * kHeavyWarps) heavy_rows_kernel(Listed<T> l, int slots, int d) {
  __shared__ float sums[kHeavyWarps][2][32 * kWide];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, stripe = static_cast<int>(blockIdx.y) * 32 * kWide;
  for (int slot = static_cast<int>(blockIdx.x); slot < slots; slot += static_cast<int>(gridDim.x)) {
    const int i = l.heavy[slot];
    if (i < 0) continue;
    const int begin = l.begin[i], end = l.begin[i + 1], segment = (end - begin + kHeavyWarps - 1) / kHeavyWarps;
    const int from = min(begin + warp * segment, end), to = min(from + segment, end);
    float enc[1][kWide], dec[1][kWide];
    l.template gather<8>(enc, dec, i, from, to, stripe + lane * kWide, 1, d);
    __syncthreads();  // the sums of the slot before have been read
    for (int j = 0; j < kWide; ++j) {
      sums[warp][0][lane * kWide + j] = enc[0][j];
      sums[warp][1][lane * kWide + j] = dec[0][j];
    }
    __syncthreads();
    for (int k = threadIdx.x; k < 2 * 32 * kWide; k += 32 * kHeavyWarps) {
      const int which = k / (32 * kWide), column = k % (32 * kWide);
      if (stripe + column >= d) continue;
      float sum = 0;
      for (int w = 0; w < kHeavyWarps; ++w) sum += sums[w][which][column];
      l.rows_of(slot, d)[which * d + stripe + column] = sum;
    }
  }
}

// What the workspace is cut into: dtheta, the list of heavy latents, and one after the other the partial sums of pull
// and the heavy latents' gradients. The fewer slots fit, the more entries a latent must have to be heavy.
struct Layout {
  int64_t most, slots;    // kernels' Listed
  int64_t chunk, chunks;  // of latents, for pull
  int64_t floats;         // of the sums

  Layout(Context& ctx, int64_t latents, int64_t d, int64_t capacity) {
    constexpr int64_t kMostChunks = 1024, kFewestLatents = 8;
    int64_t room = int64_t(ctx.cuda().workspace_bytes / sizeof(float)) - latents;
    const int64_t fit = room / (2 * d + 1);
    CHECK(fit > 0, "update_listed_latents: latents or rows are too many for the workspace");
    most = std::max(kFewestHeavy, divide_up(capacity, fit));
    slots = std::max<int64_t>(1, divide_up(capacity, most));
    room -= slots;
    chunk = std::max(kFewestLatents, divide_up(latents, std::min(kMostChunks, room / d)));
    chunks = divide_up(latents, chunk);
    floats = std::max(chunks * d, slots * 2 * d);
  }
};

}  // namespace

void update_listed_latents(Context& ctx, const LatentState& s, const Entries& e, Tensor dx, Tensor centred, Tensor dl0,
                           Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock, float bandwidth,
                           LatentUpdateOptions o) {
  const Range range("update_listed_latents");
  const int64_t latents = s.p.latents(), width = s.p.width();
  const int d = static_cast<int>(width);
  const cudaStream_t stream = ctx.cuda().stream;
  const Layout layout(ctx, latents, width, e.capacity());
  float *sums = workspace<float>(ctx, layout.floats + latents + layout.slots), *dtheta = sums + layout.floats;
  auto* heavy = reinterpret_cast<int32_t*>(dtheta + latents);
  dispatch_device_float(dx.dtype, [&]<class T>() {
    const Listed<T> l{.begin = e.begin.data<int32_t>(),
                      .row = e.row.data<int32_t>(),
                      .z = e.z.data<float>(),
                      .df = e.df.data<float>(),
                      .threshold = s.p.threshold.data<float>(),
                      .dl0 = dl0.data<float>(),
                      .dx = device_data<T>(dx),
                      .centred = device_data<T>(centred),
                      .db = db.data<float>(),
                      .dtheta = dtheta,
                      .fired = fired.data<int32_t>(),
                      .heavy = heavy,
                      .heavy_rows = sums,
                      .most = static_cast<int>(layout.most)};
    CUDA_CHECK(cudaMemsetAsync(heavy, 0xff, static_cast<size_t>(layout.slots) * sizeof(int32_t), stream));
    launch(sum_elements_kernel<T>, divide_up(latents, kElementThreads / 32), kElementThreads, 0, stream, l, latents,
           bandwidth / 2, -1 / bandwidth);
    const auto sum_rows = [&]<int kWide>() {
      launch(pull_kernel<kWide>, Grid(layout.chunks, divide_up(d, kPullThreads * kWide)), kPullThreads, 0, stream, sums,
             l.db, s.p.W_enc.data<float>(), latents, static_cast<int>(layout.chunk), d);
      sum_partials<float>(ctx, {pull.data<float>(), sums, layout.chunks, width, 1, true});
      launch(heavy_rows_kernel<T, kWide>, Grid(std::min<int64_t>(kHeavyBlocks, layout.slots), divide_up(d, 32 * kWide)),
             32 * kHeavyWarps, 0, stream, l, static_cast<int>(layout.slots), d);
    };
    if (d % 4 == 0) sum_rows.template operator()<4>();
    else sum_rows.template operator()<1>();
    // Few latents for each team where there are few of them; where there are many, fewer teams that have nothing to do.
    const int group = static_cast<int>(std::clamp<int64_t>(latents >> 14, 1, 64));
    launch_update_latents(ctx, LatentPointers(s, rates, clock, o), l, latents, width, group);
  });
}

}  // namespace gsae::cuda
