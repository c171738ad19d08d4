#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"

namespace gsae {

struct Neighbour {
  int64_t latent = 0;
  float cosine = 0;
};

// The k latents whose decoder rows have the largest cosine with that of each of `latents`, itself left out; ties go to
// the lower latent. Rows of zeros have cosine 0. Products in f32.
//
//   W_dec    (F, d) f32, on the context's device
//   scratch  (n) f32 there: some rows' cosines with all others; F + d elements at least
std::vector<std::vector<Neighbour>> decoder_neighbours(Context& ctx, Tensor W_dec, std::span<const int64_t> latents,
                                                       int64_t k, Tensor scratch);

}  // namespace gsae
