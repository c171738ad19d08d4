#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The rows of the token embedding, scaled (Gemma: by sqrt(d)):
//
//   x[r,c] = table[tokens[r], c] * scale
//
//   x       (n, d)  f32
//   table   (V, d)  f32 or bf16
//   tokens  (n)     i32, of any rank with n elements
//
// An Error if a token lies outside [0, V) or a row that is used holds NaN or infinity: of a table
// of gigabytes, used rows are all that can be checked without delay. cuda: the next
// Context::synchronize() throws it, for the first such position; the row of a token outside is NaN
// until then. Memory-bound: moves x.bytes() and n rows of the table.
void embedding(Context& ctx, Tensor x, Tensor table, Tensor tokens, float scale);

namespace cpu {
void embedding(Context& ctx, Tensor x, Tensor table, Tensor tokens, float scale);
}
namespace cuda {
void embedding(Context& ctx, Tensor x, Tensor table, Tensor tokens, float scale);
}

}  // namespace gsae
