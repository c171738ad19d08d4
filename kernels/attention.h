#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

struct AttentionOptions {
  float scale;         // of the scores, positive; Gemma 2: query_pre_attn_scalar^-1/2
  float softcap = 0;   // 0: none
  int64_t window = 0;  // 0: every earlier position; else the last `window` positions, the query's own among them
};

// Causal attention of grouped query heads, softcapped before the mask:
//
//   s[i,j] = cap * tanh(scale * (q[i] . k[j]) / cap)     for j <= i and, with a window, j > i - window
//   out[i] = sum_j softmax_j(s[i,j]) v[j]
//
//   out   (B * T, Hq * dh)  f32 or bf16 (rounded once): a token's heads side by side, as o_proj takes them
//   q     (B, Hq, T, dh)    f32 or bf16
//   k, v  (B, Hkv, T, dh)   the dtype of q; query head h reads head h / (Hq / Hkv)
//
// dh is at most kMaxHeadSize; on cuda, for bf16, a multiple of 8, and T * dh below 2^31. Sums in f32. On cuda, bf16
// operands meet tensor cores: the softmax's weights are rounded to bf16, tanh is the hardware's, within 2^-11, exp2
// too, within 2^-22. Memory does not grow with T: the scores exist a tile at a time, and keys that no query of a tile
// sees are never touched; but a NaN or infinity in v reaches all queries of a tile, as its weight is 0. Every output is
// computed by one thread in an order that depends on the shape alone (on cuda: and the GPU's architecture). 4 * dh
// FLOP, one exp and (with a cap) one tanh for each of the B * Hq * pairs scores, where pairs = sum_i min(i + 1,
// window).
//
// Softcap and windows: Gemma 2, arXiv:2408.00118. Softmax in one pass: Milakov & Gimelshein, arXiv:1805.02867; tiles:
// FlashAttention, arXiv:2205.14135.
void attention(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options);

constexpr int64_t kMaxHeadSize = 256;

namespace cpu {
void attention(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options);
}
namespace cuda {
void attention(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& options);
}

}  // namespace gsae
