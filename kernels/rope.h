#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The angles of rotary position embedding, once for all layers:
//
//   table[t,0,i] = cos(t * theta^(-2i/dh)),  table[t,1,i] = sin(of the same)
//
//   table  (T, 2, dh/2)  f32
//
// Frequency and angle are rounded to f32, as transformers computes them (Gemma2RotaryEmbedding);
// cosine and sine of that angle are exact up to their rounding.
void rope_table(Context& ctx, Tensor table, double theta);

// Splits the fused projection into heads and rotates the pairs (i, i + dh/2) of queries and keys:
//
//   q[b,h,t,i]        = a cos - c sin      a, c = elements i and i + dh/2 of head h in row b*T + t
//   q[b,h,t,i + dh/2] = c cos + a sin      k likewise; v is moved as it is
//
//   q      (B, Hq, T, dh)            f32, or bf16 (rounded once)
//   k, v   (B, Hkv, T, dh)           the dtype of q
//   qkv    (B*T, (Hq + 2 Hkv) * dh)  the dtype of q: all queries, all keys, all values
//   table  (>= T, 2, dh/2)           f32
//
// Memory-bound: moves 2 * qkv.bytes(). Su et al. 2021, arXiv:2104.09864.
void rope_split(Context& ctx, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table);

namespace cpu {
void rope_table(Context& ctx, Tensor table, double theta);
void rope_split(Context& ctx, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table);
}  // namespace cpu
namespace cuda {
void rope_table(Context& ctx, Tensor table, double theta);
void rope_split(Context& ctx, Tensor q, Tensor k, Tensor v, Tensor qkv, Tensor table);
}  // namespace cuda

}  // namespace gsae
