#include "kernels/sparse_decode.h"

#include "kernels/launch.h"
#include "kernels/partial_sums.cuh"
#include "kernels/teams.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kStage = 128;        // entries that a team looks up before it reads their rows of W_dec
constexpr int kTogether = 8;       // rows of W_dec that a thread has under way at once
constexpr int kDots = 4;           // that a warp has
constexpr int kBlocks = 1024;      // at most: as many partial sums of dbias are left
constexpr int kMostVectors = 320;  // of a row that the threads of a block hold at once

template <class T> struct Operands {
  T* dx;
  float *error, *l0;
  const float *x, *bias, *theta;
  const T* W_dec;
  // kernels/entries.h
  const int32_t *row_begin, *latent, *place;
  const float* z;
  float* df;
  int64_t n;
  int d;
  float scale;
};

template <class Team> struct Stage {
  int32_t latent[Team::kInBlock][kStage];
  float z[Team::kInBlock][kStage];
};

// A team does one row after the other, `rows` of them; a block those of [rows * kInBlock * blockIdx.x, ...). Of the
// columns a thread always has the same ones. Dynamic shared memory, for each team of the block:
//   row  (d)  x_hat, then dx as it was rounded;   sums (d)  of the unrounded dx
// What the block leaves for dbias: partial[blockIdx.x] (d).
template <class T, class Team, int kWidth>
__global__ void __launch_bounds__(Team::kMostThreads) sparse_decode_kernel(Operands<T> o, float* partial, int rows) {
  __shared__ Stage<Team> stage;
  const int team = Team::in_block(), d = o.d, lane = threadIdx.x % 32, first = Team::rank() * kWidth,
            step = Team::size() * kWidth;
  int32_t* latents = stage.latent[team];
  float* zs = stage.z[team];
  float *row = dynamic_shared<float>() + team * d, *sums = row + Team::kInBlock * d;
  for (int c = first; c < d; c += step)
    for (int j = 0; j < kWidth; ++j) sums[c + j] = 0;

  for (int pass = 0; pass < rows; ++pass) {
    const int64_t r = (int64_t(blockIdx.x) * rows + pass) * Team::kInBlock + team;
    if (r >= o.n) break;
    const int begin = o.row_begin[r], end = o.row_begin[r + 1];
    for (int c = first; c < d; c += step)
      for (int j = 0; j < kWidth; ++j) row[c + j] = 0;

    int on = 0;
    for (int base = begin; base < end; base += kStage) {
      const int count = min(kStage, end - base);
      Team::sync();  // all have read what was staged before
      for (int k = Team::rank(); k < kStage; k += Team::size()) {
        if (k >= (count + kTogether - 1) / kTogether * kTogether) break;
        const int at = base + min(k, count - 1);  // to a whole number of kTogether: a row that is there, times zero
        const int i = o.latent[at];
        const float z = o.z[o.place[at]];
        const bool used = k < count && !(z <= o.theta[i]);  // NaN is on, and shows
        on += used;
        latents[k] = i;
        zs[k] = used ? static_cast<float>(static_cast<T>(z)) : 0;
      }
      Team::sync();
      for (int c = first; c < d; c += step) {
        float sum[kWidth];
        load_row(sum, row + c);
        for (int k = 0; k < count; k += kTogether) {
          float w[kTogether][kWidth];
#pragma unroll
          for (int t = 0; t < kTogether; ++t) load_row(w[t], o.W_dec + int64_t(latents[k + t]) * d + c);
#pragma unroll
          for (int t = 0; t < kTogether; ++t)
#pragma unroll
            for (int j = 0; j < kWidth; ++j) sum[j] += zs[k + t] * w[t][j];
        }
        store_row(row + c, sum);
      }
    }

    float square = 0;
    for (int c = first; c < d; c += step) {
      float e[kWidth], b[kWidth], x[kWidth];
      load_row(e, row + c);
      load_row(b, o.bias + c);
      load_row(x, o.x + r * d + c);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        e[j] += b[j] - x[j];
        square += e[j] * e[j];
        e[j] *= o.scale;
        sums[c + j] += e[j];
        row[c + j] = static_cast<float>(static_cast<T>(e[j]));
      }
      store_row(o.dx + r * d + c, e);
    }
    square = Team::sum(square), on = Team::sum(on);
    if (Team::rank() == 0) o.error[r] = square, o.l0[r] = static_cast<float>(on);
    Team::sync();  // the row is whole

    for (int k = begin + Team::rank() / 32 * kDots; k < end; k += Team::size() / 32 * kDots) {
      const T* w[kDots];
      float dot[kDots] = {};
#pragma unroll
      for (int t = 0; t < kDots; ++t) w[t] = o.W_dec + int64_t(o.latent[min(k + t, end - 1)]) * d;
#pragma unroll 2
      for (int c = lane * kWidth; c < d; c += 32 * kWidth) {
        float g[kWidth], v[kDots][kWidth];
        load_row(g, row + c);
#pragma unroll
        for (int t = 0; t < kDots; ++t) load_row(v[t], w[t] + c);
#pragma unroll
        for (int t = 0; t < kDots; ++t)
#pragma unroll
          for (int j = 0; j < kWidth; ++j) dot[t] += g[j] * v[t][j];
      }
#pragma unroll
      for (int t = 0; t < kDots; ++t) {
        dot[t] = warp_sum(dot[t]);
        if (lane == 0 && k + t < end) o.df[o.place[k + t]] = dot[t];
      }
    }
    Team::sync();  // nobody reads the row any more
  }

  __syncthreads();
  const float* all = dynamic_shared<float>() + Team::kInBlock * d;
  for (int c = threadIdx.x; c < d; c += blockDim.x) {
    float sum = 0;
    for (int t = 0; t < Team::kInBlock; ++t) sum += all[t * d + c];
    partial[int64_t(blockIdx.x) * d + c] = sum;
  }
}

template <class T, class Team, int kWidth>
void sparse_decode(Context& ctx, const Operands<T>& o, float* dbias, int threads) {
  const auto divide_up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t most = std::min<int64_t>(kBlocks, int64_t(ctx.cuda().workspace_bytes / sizeof(float)) / o.d);
  CHECK(most > 0, "sparse_decode: rows are too long for the workspace");
  const int64_t rows = divide_up(o.n, most * Team::kInBlock), blocks = divide_up(o.n, rows * Team::kInBlock);
  float* partial = workspace<float>(ctx, blocks * o.d);
  launch(sparse_decode_kernel<T, Team, kWidth>, blocks, threads, 2 * Team::kInBlock * sizeof(float) * o.d,
         ctx.cuda().stream, o, partial, static_cast<int>(rows));
  sum_partials<float>(ctx, {dbias, partial, blocks, o.d, 1, true});
}

}  // namespace

void sparse_decode(Context& ctx, Tensor dx, Tensor error, Tensor l0, Tensor dbias, const Entries& e, Tensor x,
                   Tensor W_dec, Tensor bias, Tensor theta, float scale) {
  const Range range("sparse_decode");
  const int64_t n = x.dim[0], d = x.dim[1];
  dispatch_device_float(dx.dtype, [&]<class T>() {
    const Operands<T> o{device_data<T>(dx),
                        error.data<float>(),
                        l0.data<float>(),
                        x.data<float>(),
                        bias.data<float>(),
                        theta.data<float>(),
                        device_data<T>(W_dec),
                        e.row_begin.data<int32_t>(),
                        e.latent.data<int32_t>(),
                        e.place.data<int32_t>(),
                        e.z.data<float>(),
                        e.df.data<float>(),
                        n,
                        static_cast<int>(d),
                        scale};
    const auto start = [&]<int kWidth>() {
      if (d <= 256) return sparse_decode<T, WarpTeam, kWidth>(ctx, o, dbias.data<float>(), WarpTeam::kMostThreads);
      const int64_t vectors = (d + kWidth - 1) / kWidth, rounds = (vectors + kMostVectors - 1) / kMostVectors;
      const int64_t threads = (vectors + 32 * rounds - 1) / (32 * rounds) * 32;
      sparse_decode<T, BlockTeam, kWidth>(ctx, o, dbias.data<float>(), static_cast<int>(threads));
    };
    constexpr int kWidth = 16 / sizeof(T);
    if (d % kWidth == 0) start.template operator()<kWidth>();
    else start.template operator()<1>();
  });
}

}  // namespace gsae::cuda
