#pragma once

#include "kernels/context.h"
#include "kernels/entries.h"
#include "kernels/latents.h"
#include "kernels/tensor.h"

namespace gsae {

// Adam with beta1 = 0 for all that belongs to a latent, in one visit. t is the number of this step, from 1:
//
//   g_dec -= (g_dec . W_dec) W_dec                        the decoder's rows keep unit norm
//   v  = beta2^(t - stamp) v + (1 - beta2) g^2            the decay of the steps that it sat out, and this one's
//   p -= rate g / (sqrt(v / (1 - beta2^t)) + epsilon)
//   theta = max(theta, 0), where NaN stays;  W_dec /= |W_dec|;  stamp = t;  bf16 copies follow
//
// A latent without a gradient does not move: with beta1 = 0 only its second moment decays, which `stamp` defers,
// exactly. A row of W_dec that is zero has no direction: it stays as Adam leaves it.
//
//   rates (kRates) f32: kernels/adam.h;  clock (1) i64: t
//
// Kingma & Ba 2014, arXiv:1412.6980; Bricken et al. 2023; Gemma Scope, arXiv:2408.05147, section 3.2.
struct LatentUpdateOptions {
  float epsilon = 1e-8f;
  float decoder_rate = 1, threshold_rate = 1;  // multiply the learning rate of W_dec and of theta
};

// With gradients of every latent: g (F, d), (F). Memory-bound: 2 d F (20 + [bf16] 2) bytes.
void update_latents(Context& ctx, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                    LatentUpdateOptions options);

// With gradients from a step's entries (kernels/entries.h, after sparse_decode); latents without any are not visited.
// With `on` where not z <= theta:
//
//   dz       = df where on, else 0
//   g_dec[i] = sum of round(z) dx[r] where on;      g_enc[i] = sum of round(dz) centred[r]
//   db[i]    = sum of dz;       dtheta[i] = -(1/eps) sum of [|z - theta| < eps/2] (theta df + dl0[r])
//   fired[i] = number of entries that are on (0 for latents that are not visited)
//   pull    += sum_i db[i] W_enc[i], with W_enc as it was before
//
// in the order of the rows; round: to the dtype of dx and centred, as the products of the dense step do.
//
//   dx, centred  (B, d)  f32 or bf16, both the same;  dl0 (B) f32;  pull (d) f32, accumulated
//   db           (F)     f32, scratch: db afterwards, of the latents that were visited;  fired (F) i32, all written
//
// Every sum has one order, which follows from the shapes and the lists alone: row by row on cpu; on cuda db and dtheta
// by a warp, and the rows of a latent with very many entries (256; more where the workspace has no room for so many) in
// 16 segments. Memory-bound: per visited latent 2 d (16 + [bf16] 2) bytes, on cuda 4 d more for pull; per entry 2 d
// size_of(dx.dtype), mostly from a cache. Scratch: the workspace, F + 2 d floats at least.
void update_listed_latents(Context& ctx, const LatentState& s, const Entries& entries, Tensor dx, Tensor centred,
                           Tensor dl0, Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock,
                           float bandwidth, LatentUpdateOptions options);

namespace cpu {
void update_latents(Context& ctx, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                    LatentUpdateOptions options);
void update_listed_latents(Context& ctx, const LatentState& s, const Entries& entries, Tensor dx, Tensor centred,
                           Tensor dl0, Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock,
                           float bandwidth, LatentUpdateOptions options);
}  // namespace cpu
namespace cuda {
void update_latents(Context& ctx, const LatentState& s, const LatentTensors& g, Tensor rates, Tensor clock,
                    LatentUpdateOptions options);
void update_listed_latents(Context& ctx, const LatentState& s, const Entries& entries, Tensor dx, Tensor centred,
                           Tensor dl0, Tensor db, Tensor fired, Tensor pull, Tensor rates, Tensor clock,
                           float bandwidth, LatentUpdateOptions options);
}  // namespace cuda

}  // namespace gsae
