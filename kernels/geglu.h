#pragma once

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// The gated activation between the two products of Gemma's feed-forward block:
//
//   out[r,c] = gelu(gate_up[r, c]) * gate_up[r, ffn + c]
//   gelu(g)  = g/2 (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3)))
//
//   out      (n, ffn)      f32 or bf16, rounded once
//   gate_up  (n, 2 * ffn)  f32 or bf16: gates, then ups
//
// In f32, to a few units in the last place of each factor (of a factor below 1e-36 only its sign may
// be left); infinite gates give NaN or infinity, as broken weights should. Memory-bound: moves
// gate_up.bytes() + out.bytes().
//
// Shazeer 2020, arXiv:2002.05202; the tanh form of GELU: Hendrycks & Gimpel 2016, arXiv:1606.08415.
void geglu(Context& ctx, Tensor out, Tensor gate_up);

namespace cpu {
void geglu(Context& ctx, Tensor out, Tensor gate_up);
}
namespace cuda {
void geglu(Context& ctx, Tensor out, Tensor gate_up);
}

}  // namespace gsae
