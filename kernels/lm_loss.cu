#include "kernels/lm_loss.h"

#include <algorithm>
#include <limits>

#include "kernels/device_fault.cuh"
#include "kernels/device_math.cuh"
#include "kernels/launch.h"
#include "kernels/matmul.h"
#include "kernels/reduce.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

// Of each row of a block, over the chunks of the vocabulary seen so far: log sum exp is max + log(sum). The target's
// logit waits in nll.
struct RunningSoftmax {
  double* sum;
  float* max;
};

// Words [begin, begin + width) of the vocabulary.
struct Chunk {
  int64_t begin, vocabulary;
  int width;
};

__device__ float block_max(float x) {
  __shared__ float partial[kWarps];
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) x = fmaxf(x, partial[w]);
  return x;
}

// One block per row takes in a chunk's logits. cap: 0 for none. A NaN passes by the maxima, and makes the sum NaN.
template <int kStep>
__global__ void __launch_bounds__(kThreads)
    lm_loss_kernel(float* nll, RunningSoftmax running, const float* __restrict__ logits,
                   const int32_t* __restrict__ targets, int64_t first_row, Chunk chunk, float cap, DeviceFault* fault) {
  const int64_t r = blockIdx.x;
  const float* row = logits + r * chunk.width;
  const float inverse_cap = 1 / cap;

  // Each thread its own sum, relative to its own maximum, of two accesses at a time.
  float max = std::numeric_limits<float>::lowest();
  double sum = 0;
  for (int c = static_cast<int>(threadIdx.x) * kStep; c < chunk.width; c += 2 * kThreads * kStep) {
    const int second = c + kThreads * kStep;
    float l[2][kStep] = {};
    load_row<kStep>(l[0], row + c);
    if (second < chunk.width) load_row<kStep>(l[1], row + second);
    float now = max;
    for (int p = 0; p < 2; ++p)
      for (int i = 0; i < kStep; ++i) {
        if (cap > 0) l[p][i] = softcapped(l[p][i], cap, inverse_cap);
        if (p == 1 && second >= chunk.width) l[p][i] = -std::numeric_limits<float>::infinity();
        now = fmaxf(now, l[p][i]);
      }
    if (now > max && sum > 0) sum *= exp(double(max) - double(now));
    max = now;
    for (int p = 0; p < 2; ++p)
      for (int i = 0; i < kStep; ++i) sum += double(expf(l[p][i] - max));
  }

  const bool first = chunk.begin == 0, last = chunk.begin + chunk.width == chunk.vocabulary;
  const float before = first ? std::numeric_limits<float>::lowest() : running.max[r];
  const float largest = fmaxf(before, block_max(max));
  sum = block_sum<kWarps>(sum * double(expf(max - largest)));
  if (threadIdx.x != 0) return;

  if (!first) sum += running.sum[r] * exp(double(before) - largest);
  running.sum[r] = sum;
  running.max[r] = largest;
  const int32_t target = targets[r];
  const int64_t word = target - chunk.begin;
  if (0 <= word && word < chunk.width) nll[r] = cap > 0 ? softcapped(row[word], cap, inverse_cap) : row[word];
  if (!last) return;
  if (target < -1 || target >= chunk.vocabulary) {
    report(fault, DeviceFault::kTargetOutside, first_row + r, target, chunk.vocabulary);
    nll[r] = std::numeric_limits<float>::quiet_NaN();
  } else {
    nll[r] = target < 0 ? 0.0f : static_cast<float>(double(largest) - nll[r] + log(sum));
  }
}

}  // namespace

void lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch) {
  const Range range("lm_loss");
  CHECK(h.dtype == table.dtype,
        "lm_loss: h " + describe(h) + " and table " + describe(table) + " must be of one dtype on cuda");
  constexpr int64_t kRunning = 4;  // floats of scratch behind the logits that a row's running state takes, at most
  CHECK(scratch.size() > kRunning, "lm_loss: scratch " + describe(scratch) + " must hold 5 elements at least");
  const int64_t n = h.dim[0], vocabulary = table.dim[0];
  const int64_t rows = std::min({n, scratch.dim[0], scratch.size() / (kRunning + 1)});
  int64_t columns = std::min(scratch.size() / rows - kRunning, vocabulary);
  if (columns > 64 && columns < vocabulary) columns -= columns % 64;  // whole tiles of the product, aligned rows

  const int64_t logits_end = (rows * columns + 1) / 2 * 2;
  float* running = scratch.data<float>() + logits_end;
  const RunningSoftmax state{reinterpret_cast<double*>(running), running + 2 * rows};
  for (int64_t i = 0; i < n; i += rows) {
    const Tensor block = h.rows(i, std::min(n, i + rows));
    const int64_t m = block.dim[0];
    for (int64_t c = 0; c < vocabulary; c += columns) {
      const Tensor words = table.rows(c, std::min(vocabulary, c + columns));
      const int64_t width = words.dim[0];
      Tensor logits = view(scratch.data<float>(), {m, width});
      logits.device = scratch.device;
      cuda::matmul(ctx, logits, block, words, {.transpose_b = true});
      const bool vector = width % 4 == 0 && aligned(16, {logits.ptr});
      launch(vector ? lm_loss_kernel<4> : lm_loss_kernel<1>, m, kThreads, 0, ctx.cuda().stream, nll.data<float>() + i,
             state, logits.data<float>(), targets.data<int32_t>() + i, i, Chunk{c, vocabulary, static_cast<int>(width)},
             cap, ctx.cuda().fault);
    }
  }
}

}  // namespace gsae::cuda
