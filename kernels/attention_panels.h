#pragma once

// For the CPU backend's .cc files only: what attention() and attention_cached() share.

#include <algorithm>

#include "kernels/attention.h"

namespace gsae {

// Keys (or values) of one head by their positions: those before `start` in a ring of C rows, the others one behind the
// other.
template <class T> struct RingRows {
  // rows (B, Hkv, T, dh), ring (B, Hkv, C, dh) or empty; head: of all B * Hkv
  RingRows(Tensor rows, Tensor ring, int64_t start, int64_t head)
      : fresh(rows.data<T>() + head * rows.dim[2] * rows.dim[3]),
        cached(ring ? ring.data<T>() + head * ring.dim[2] * ring.dim[3] : nullptr),
        start(start),
        capacity(ring ? ring.dim[2] : 1),
        size(rows.dim[3]) {}

  const T* row(int64_t position) const {
    return position < start ? cached + position % capacity * size : fresh + (position - start) * size;
  }
  // How many rows from this position on lie one behind the other, up to `most`.
  int64_t neighbours(int64_t position, int64_t most) const {
    return position < start ? std::min({most, start - position, capacity - position % capacity}) : most;
  }

  const T *fresh, *cached;
  int64_t start, capacity, size;
};

namespace cpu {

// Attention of the positions start, start + 1, ... of q, (B, Hq, T, dh), over those before, in k_cache and v_cache (see
// kernels/attention_cached.h; empty when start is 0), and over k and v. Operands are checked already.
void attention_panels(Tensor out, Tensor q, Tensor k, Tensor v, Tensor k_cache, Tensor v_cache, int64_t start,
                      const AttentionOptions& options);

}  // namespace cpu
}  // namespace gsae
