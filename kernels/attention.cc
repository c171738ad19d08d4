#include "kernels/attention.h"

#include <cmath>
#include <limits>

#include "kernels/attention_panels.h"
#include "kernels/checkf.h"
#include "kernels/dispatch.h"

namespace gsae {

void attention(Context& ctx, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& o) {
  CHECKF(q.rank == 4 && k.rank == 4 && (q.dtype == DType::kF32 || q.dtype == DType::kBF16) && k.dtype == q.dtype,
         "attention: q {} must be f32 or bf16 (B, Hq, T, dh) and k {} the same (B, Hkv, T, dh)", q, k);
  const int64_t batch = q.dim[0], heads = q.dim[1], length = q.dim[2], size = q.dim[3], kv_heads = k.dim[1];
  CHECKF(k.is({batch, kv_heads, length, size}), "attention: q {} and k {} differ in B, T or dh", q, k);
  CHECKF(v.is({batch, kv_heads, length, size}) && v.dtype == k.dtype, "attention: v {} must match k {}", v, k);
  CHECKF(kv_heads > 0 && heads % kv_heads == 0, "attention: the heads of q {} are no multiple of those of k {}", q, k);
  CHECKF(length <= std::numeric_limits<int32_t>::max(), "attention: q {}: positions must fit 32 bits", q);
  CHECKF(0 < size && size <= kMaxHeadSize, "attention: q {}: heads must have 1 to {} elements", q, kMaxHeadSize);
  CHECKF(out.is({batch * length, heads * size}), "attention: out {} must be ({}, {})", out, batch * length,
         heads * size);
  CHECKF(std::isfinite(o.scale) && o.scale > 0 && o.softcap >= 0 && o.window >= 0,
         "attention: scale {} must be positive, softcap {} and window {} at least 0", o.scale, o.softcap, o.window);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), attention(ctx, out, q, k, v, o));
}

void cpu::attention(Context&, Tensor out, Tensor q, Tensor k, Tensor v, const AttentionOptions& o) {
  attention_panels(out, q, k, v, {}, {}, 0, o);
}

}  // namespace gsae
