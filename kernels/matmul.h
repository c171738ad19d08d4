#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

struct MatmulOptions {
  bool transpose_a = false;  // a is stored (k, m)
  bool transpose_b = false;  // b is stored (n, k), as every linear layer stores its weight
  bool accumulate = false;   // out += a b instead of out = a b
  bool tf32 = false;         // f32 operands read as tf32 (10 bits of mantissa) by tensor cores; an Error on cpu
  Tensor bias = {};          // (n) f32, added to every row; not with accumulate
};

// Matrix product, row-major:
//
//   out[i,j] (+)= sum_k a[i,k] * b[k,j] + bias[j]
//
//   out  (m, n)  f32; aliases neither input
//   a    (m, k)  f32 or bf16
//   b    (k, n)  dtype of a
//
// Accumulates in f32. 2 * m * n * k FLOP. cuda: cuBLASLt, with the algorithm that its heuristic names first, chosen
// once for each shape; sums split along k are added in a fixed order. cpu: oneDNN; where the processor has no bf16
// product, bf16 operands are widened to f32, panel by panel, which gives the same sums up to their order. With AVX-512
// the bits do not depend on the number of threads; without it oneDNN splits sums among them, and only the same number
// of threads gives the same bits.
void matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions options = {});

// A linear layer whose weight is stored as one or several tensors stacked along their rows (the
// query, key and value projections; gate and up):
//
//   out[i, :] = (x[i] w_0^T, x[i] w_1^T, ...)
//
//   out      (n, sum of rows)  f32, or bf16 if x is (rounded once)
//   x        (n, k)            f32 or bf16: the precision of the product's operands; k <= 2^21
//   weights  (rows, k) each    f32 or bf16: widened or rounded to the dtype of x, panel by panel,
//                              in the context's workspace, so that a mapped bf16 checkpoint is
//                              never copied whole. cuda: in the dtype of x; those that lie one behind the
//                              other in memory are one product
//
// cpu: of up to 8 rows, as when text is generated, weights go by once as they are stored, at the memory's speed
// (kernels/few_rows.h).
void linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights);

// What cuBLASLt's heuristic chose, one line for each shape of product that ctx has computed; none on cpu.
std::vector<std::string> chosen_products(Context& ctx);

namespace cpu {
void matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions options);
void linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights);
std::vector<std::string> chosen_products(Context& ctx);
bool has_bf16_products();  // of the processor: AVX-512 BF16 or AMX
}  // namespace cpu
namespace cuda {
void matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions options);
void linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights);
std::vector<std::string> chosen_products(Context& ctx);
}  // namespace cuda

}  // namespace gsae
