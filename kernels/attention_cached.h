#pragma once

#include "kernels/attention.h"

namespace gsae {

// attention() of the next T positions of each sequence, start to start + T - 1, over a cache of those before and over
// themselves. Position p sees the keys of positions j <= p and, with a window, j > p - window:
//
//   j < start:  row j mod C of k_cache and v_cache
//   j >= start: row j - start of k and v
//
//   out               (B * T, Hq * dh)  f32 or bf16 (rounded once)
//   q                 (B, Hq, T, dh)    f32 or bf16
//   k, v              (B, Hkv, T, dh)   the dtype of q
//   k_cache, v_cache  (B, Hkv, C, dh)   the dtype of q; hold what is seen of the positions before: C >= window - 1, or
//                                       C >= start. Checked on the cpu alone
//   start             (1)               i32, at least 0; start + T < 2^31
//
// start is read on the device, so that a Graph replays the op for each new token. Sums in f32, for bf16 operands too:
// one position is bound by the cache's way from memory. Keys are taken in parts, which depend on shapes and start
// alone and are put together in their order: the same bits from run to run, and on cpu with any number of threads.
// cuda: dh up to kMaxHeadSize, any. One position moves the rows of the cache that it sees; 4 * dh FLOP for each score.
//
// Split keys: Flash-Decoding (Dao, Haziza, Massa & Sizov 2023), by the rule of Milakov & Gimelshein, arXiv:1805.02867.
void attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                      Tensor start, const AttentionOptions& options);

// Puts the rows of k and v of positions start, start + 1, ... into the cache, at row (position mod C); of more than C
// the last C. Operands as above. Moves each row in and out once.
void append_cached(Context& ctx, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start);

namespace cpu {
void attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                      Tensor start, const AttentionOptions& options);
void append_cached(Context& ctx, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start);
}  // namespace cpu
namespace cuda {
void attention_cached(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache,
                      Tensor start, const AttentionOptions& options);
void append_cached(Context& ctx, Tensor k_cache, Tensor v_cache, Tensor k, Tensor v, Tensor start);
}  // namespace cuda

}  // namespace gsae
