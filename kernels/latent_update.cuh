#pragma once

// The step of one latent, by the threads of a team, and the kernels that give every latent its own: for the .cu files
// that say where the gradients come from.

#include "kernels/adam.h"
#include "kernels/latent_update.h"
#include "kernels/launch.h"
#include "kernels/teams.cuh"
#include "kernels/vector_access.cuh"

namespace gsae::cuda {

constexpr int kLatentWidth = 4;  // consecutive elements of a row that a thread moves at once

struct LatentPointers {
  struct Tensors {
    float *W_enc, *W_dec, *b_enc, *threshold;

    explicit Tensors(const LatentTensors& t)
        : W_enc(t.W_enc.data<float>()),
          W_dec(t.W_dec.data<float>()),
          b_enc(t.b_enc.data<float>()),
          threshold(t.threshold.data<float>()) {}
  };

  Tensors p, v;
  __nv_bfloat16 *W_enc16, *W_dec16;  // or null
  int64_t* stamp;
  const float* rates;
  const int64_t* clock;
  LatentUpdateOptions options;

  LatentPointers(const LatentState& s, Tensor rates, Tensor clock, LatentUpdateOptions o)
      : p(s.p),
        v(s.v),
        W_enc16(s.W_enc16 ? device_data<__nv_bfloat16>(s.W_enc16) : nullptr),
        W_dec16(s.W_dec16 ? device_data<__nv_bfloat16>(s.W_dec16) : nullptr),
        stamp(s.stamp.data<int64_t>()),
        rates(rates.data<float>()),
        clock(clock.data<int64_t>()),
        options(o) {}
};

// One element's step, as the CPU does it (kernels/latent_update.cc).
struct LatentAdam {
  float rate, decay, fresh, unbias, grad_scale, epsilon;

  __device__ LatentAdam(const LatentPointers& s, int64_t i)
      : rate(s.rates[kLearningRate]),
        fresh(1 - s.rates[kBeta2]),
        unbias(s.rates[kUnbias]),
        grad_scale(s.rates[kGradScale]),
        epsilon(s.options.epsilon) {
    const int64_t steps = *s.clock - s.stamp[i];
    decay = s.rates[kBeta2];
    if (steps != 1) decay = powf(decay, static_cast<float>(steps));
  }
  __device__ void operator()(float& p, float& v, float g, float factor = 1) const {
    g *= grad_scale;
    v = decay * v + fresh * g * g;
    p -= factor * rate * g / (sqrtf(v * unbias) + epsilon);
  }
};

// By one thread, after all that read theta and the stamp.
__device__ inline void step_latent_elements(const LatentPointers& s, const LatentAdam& adam, int64_t i, float g_b,
                                            float g_theta) {
  adam(s.p.b_enc[i], s.v.b_enc[i], g_b);
  float theta = s.p.threshold[i];
  adam(theta, s.v.threshold[i], g_theta, s.options.threshold_rate);
  s.p.threshold[i] = theta < 0 ? 0 : theta;  // NaN stays
  s.stamp[i] = *s.clock;
}

__device__ inline float inverse_norm(float square) { return square == 0 ? 1 : 1 / sqrtf(square); }

// What one latent does with its gradients, which the threads of a team hold as they will hold its rows, from the one
// read to the one write: the k-th vector of a thread begins at column (k * size + rank) * kLatentWidth. d is a multiple
// of kLatentWidth, at most kVectors * kLatentWidth * size.
template <class Team, int kVectors>
__device__ void step_latent_rows(const LatentPointers& s, const LatentAdam& adam, int64_t i,
                                 const float (&g_enc)[kVectors][kLatentWidth],
                                 const float (&g_dec)[kVectors][kLatentWidth], int d) {
  const int64_t row = i * d;
  const auto column = [](int k) { return (k * Team::size() + Team::rank()) * kLatentWidth; };
  float w[kVectors][kLatentWidth] = {}, v[kVectors][kLatentWidth];
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (column(k) >= d) continue;
    load_row(w[k], s.p.W_dec + row + column(k));
    load_row(v[k], s.v.W_dec + row + column(k));
  }
  // the encoder's row, while the decoder's is under way
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (column(k) >= d) continue;
    float p[kLatentWidth], m[kLatentWidth];
    load_row(p, s.p.W_enc + row + column(k));
    load_row(m, s.v.W_enc + row + column(k));
#pragma unroll
    for (int j = 0; j < kLatentWidth; ++j) adam(p[j], m[j], g_enc[k][j]);
    store_row(s.p.W_enc + row + column(k), p);
    store_row(s.v.W_enc + row + column(k), m);
    if (s.W_enc16) store_row(s.W_enc16 + row + column(k), p);
  }

  float along = 0, square = 0;
#pragma unroll
  for (int k = 0; k < kVectors; ++k)
    for (int j = 0; j < kLatentWidth; ++j) along += g_dec[k][j] * w[k][j];
  along = Team::sum(along);
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (column(k) >= d) continue;
#pragma unroll
    for (int j = 0; j < kLatentWidth; ++j) {
      adam(w[k][j], v[k][j], g_dec[k][j] - along * w[k][j], s.options.decoder_rate);
      square += w[k][j] * w[k][j];
    }
    store_row(s.v.W_dec + row + column(k), v[k]);
  }
  const float inverse = inverse_norm(Team::sum(square));
#pragma unroll
  for (int k = 0; k < kVectors; ++k) {
    if (column(k) >= d) continue;
#pragma unroll
    for (int j = 0; j < kLatentWidth; ++j) w[k][j] *= inverse;
    store_row(s.p.W_dec + row + column(k), w[k]);
    if (s.W_dec16) store_row(s.W_dec16 + row + column(k), w[k]);
  }
}

// A Source of gradients has
//
//   bool has(i)                                latent i has a gradient
//   float b(i), theta(i)                       those of its elements
//   rows(enc, dec, i, column, step, d)         the columns of its rows from `column`, `column + step`, ... on, kWide
//   each;
//                                              zeros beyond d

// A team does the latents [group * index, group * (index + 1)), those that have a gradient.
template <class Source, class Team, int kVectors>
__global__ void __launch_bounds__(Team::kMostThreads)
    update_latents_kernel(LatentPointers s, Source source, int64_t latents, int group, int d) {
  const int64_t first = Team::index() * group, last = min(first + group, latents);
  for (int64_t i = first; i < last; ++i) {
    if (!source.has(i)) continue;
    float g_enc[kVectors][kLatentWidth], g_dec[kVectors][kLatentWidth];
    source.rows(g_enc, g_dec, i, Team::rank() * kLatentWidth, Team::size() * kLatentWidth, d);
    const LatentAdam adam(s, i);
    step_latent_rows<Team>(s, adam, i, g_enc, g_dec, d);
    if (Team::rank() == 0) step_latent_elements(s, adam, i, source.b(i), source.theta(i));
  }
}

// The same for rows of any length, a block for each latent: every pass reads what it needs again, from a cache if it
// is there.
constexpr int kAnyLatentThreads = 256;
template <class Source>
__global__ void __launch_bounds__(kAnyLatentThreads) update_any_latents_kernel(LatentPointers s, Source source, int d) {
  const int64_t i = blockIdx.x, row = i * d;
  if (!source.has(i)) return;
  const LatentAdam adam(s, i);
  float *w = s.p.W_dec + row, *v = s.v.W_dec + row, along = 0, square = 0;
  float g_enc[1][1], g_dec[1][1];
  for (int c = threadIdx.x; c < d; c += kAnyLatentThreads) {
    source.rows(g_enc, g_dec, i, c, 1, d);
    along += g_dec[0][0] * w[c];
  }
  along = sum_over_block(along);
  for (int c = threadIdx.x; c < d; c += kAnyLatentThreads) {
    source.rows(g_enc, g_dec, i, c, 1, d);
    adam(w[c], v[c], g_dec[0][0] - along * w[c], s.options.decoder_rate);
    square += w[c] * w[c];
    adam(s.p.W_enc[row + c], s.v.W_enc[row + c], g_enc[0][0]);
    if (s.W_enc16) s.W_enc16[row + c] = static_cast<__nv_bfloat16>(s.p.W_enc[row + c]);
  }
  const float inverse = inverse_norm(sum_over_block(square));
  for (int c = threadIdx.x; c < d; c += kAnyLatentThreads) {
    w[c] *= inverse;
    if (s.W_dec16) s.W_dec16[row + c] = static_cast<__nv_bfloat16>(w[c]);
  }
  if (threadIdx.x == 0) step_latent_elements(s, adam, i, source.b(i), source.theta(i));
}

// Short rows: two vectors of each operand in a lane of a warp. Long ones: one in a thread of a block, or three (192
// threads for the 2B's 2304).
template <class Source>
void launch_update_latents(Context& ctx, const LatentPointers& s, const Source& source, int64_t latents, int64_t width,
                           int group) {
  const int d = static_cast<int>(width);
  const auto start = [&](auto kernel, int64_t teams_in_block, int64_t threads) {
    const int64_t teams = (latents + group - 1) / group;
    launch(kernel, (teams + teams_in_block - 1) / teams_in_block, static_cast<unsigned>(threads), 0, ctx.cuda().stream,
           s, source, latents, group, d);
  };
  const auto threads = [&](int vectors) { return (d + 128 * vectors - 1) / (128 * vectors) * 32; };
  const bool whole = d % kLatentWidth == 0;
  if (whole && d <= 256) start(update_latents_kernel<Source, WarpTeam, 2>, WarpTeam::kInBlock, WarpTeam::kMostThreads);
  else if (whole && d <= 1024) start(update_latents_kernel<Source, BlockTeam, 1>, 1, threads(1));
  else if (whole && threads(3) <= BlockTeam::kMostThreads)
    start(update_latents_kernel<Source, BlockTeam, 3>, 1, threads(3));
  else launch(update_any_latents_kernel<Source>, latents, kAnyLatentThreads, 0, ctx.cuda().stream, s, source, d);
}

}  // namespace gsae::cuda
