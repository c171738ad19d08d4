#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Moves rows into their slots, converting on the way:
//
//   table[index[r]] = rows[r]     for every r with index[r] >= 0; the others are dropped
//
//   table  (N, d)  f32 or bf16; no slot may be named twice
//   rows   (n, d)  f32 or bf16
//   index  (n)     i32, below N: checked on the cpu alone
void scatter_rows(Context& ctx, Tensor table, Tensor rows, Tensor index);

// The same, and how long each row is, with one read of it:
//
//   norms[r] = |rows[r]| where index[r] >= 0, else 0     (n) f32, summed in f32
//
// A row that holds NaN or infinity, or whose square overflows f32, has a norm that is not finite.
void scatter_rows_with_norms(Context& ctx, Tensor table, Tensor norms, Tensor rows, Tensor index);

// Takes rows out of their slots:
//
//   out[r] = scale * table[index[r]]
//
//   out    (n, d)  f32
//   table  (N, d)  f32 or bf16
//   index  (n)     i32, in [0, N): checked on the cpu alone
void gather_rows(Context& ctx, Tensor out, Tensor table, Tensor index, float scale);

// out[r] = x[r] - bias: f32 or bf16 (n, d), rounded once, from x (n, d) f32, which it does not overlap, and bias (d)
// f32.
void subtract_bias(Context& ctx, Tensor out, Tensor x, Tensor bias);

// All memory-bound: each operand moves once.

namespace cpu {
void scatter_rows(Context& ctx, Tensor table, Tensor rows, Tensor index);
void scatter_rows_with_norms(Context& ctx, Tensor table, Tensor norms, Tensor rows, Tensor index);
void gather_rows(Context& ctx, Tensor out, Tensor table, Tensor index, float scale);
void subtract_bias(Context& ctx, Tensor out, Tensor x, Tensor bias);
}  // namespace cpu
namespace cuda {
void scatter_rows(Context& ctx, Tensor table, Tensor rows, Tensor index);
void scatter_rows_with_norms(Context& ctx, Tensor table, Tensor norms, Tensor rows, Tensor index);
void gather_rows(Context& ctx, Tensor out, Tensor table, Tensor index, float scale);
void subtract_bias(Context& ctx, Tensor out, Tensor x, Tensor bias);
}  // namespace cuda

}  // namespace gsae
