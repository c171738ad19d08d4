#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The language model's loss per token, from the final hidden states, without ever holding all logits:
//
//   l[r,:]  = cap * tanh((h[r] E^T) / cap)
//   nll[r]  = log(sum_v exp(l[r,v])) - l[r,target[r]]
//
//   nll      (n)              f32
//   h        (n, d)           f32 or bf16: the precision of the product's operands
//   table    (V, d)           f32 or bf16: E, the tied embedding; cuda: the dtype of h
//   targets  (n)              i32 in [0, V), or -1: no loss, nll = 0; anything else is an Error (cuda: at the next
//                             Context::synchronize(), and nll is NaN)
//   cap                       0: none
//   scratch  (rows, columns)  f32, any size: logits of `rows` tokens and `columns` words at a time
//
// cuda: of each row of scratch 4 elements are not logits but what is carried from chunk to chunk, and a chunk of more
// than 64 words is a multiple of 64: give (rows, 64 k + 4), 5 elements at least. Logits that stay in the GPU's cache
// (rows * columns of a few million) spare its memory.
//
// Products and exponentials in f32, their sum over the vocabulary in f64. 2 * n * d * V FLOP; the table is read once
// for every `rows` tokens (on cpu for every 1024 at most), so more rows are faster.
//
// The softmax in one pass over chunks: Milakov & Gimelshein, arXiv:1805.02867. The cap: Gemma 2, arXiv:2408.00118.
void lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch);

namespace cpu {
void lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch);
}
namespace cuda {
void lm_loss(Context& ctx, Tensor nll, Tensor h, Tensor table, Tensor targets, float cap, Tensor scratch);
}

}  // namespace gsae
