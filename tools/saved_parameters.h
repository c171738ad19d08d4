#pragma once

#include <string>

#include "kernels/memory.h"
#include "sae/sae_parameters.h"

namespace gsae {

// The parameters that --init names: a safetensors file with W_enc (d, F), W_dec (F, d), b_enc, b_dec and threshold,
// in normalised units, of any float dtype. An Error names a missing tensor, a wrong shape or dtype, a number that is
// not finite, a negative threshold, or decoder rows that do not have unit norm.
struct SavedParameters {
  SavedParameters(const std::string& path, int64_t width, int64_t latents);

  Buffer memory;
  SaeParameters params;
};

}  // namespace gsae
