#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sae/sae_location.h"
#include "sae/sae_parameters.h"

namespace gsae {

// What is known about an SAE beside its parameters. Zero or empty: not said.
struct SaeDescription {
  SaeLocation location;
  std::string name;  // in the run's train.jsonl
  std::string preset;
  double l0 = 0;          // asked for
  double lambda = 0;      // of the penalty at the end
  double average_l0 = 0;  // reached, on held-out text
  int64_t tokens = 0;     // trained on
  int64_t context = 0;    // tokens of a context
  std::optional<uint64_t> seed;
  double input_scale = 0;      // C, already folded into the parameters
  std::vector<float> density;  // (F) of held-out tokens, the part on which each latent fires
};

// DIR/config.json, and DIR/density.npy if the densities are known: each whole or not at all.
void write_sae_description(const std::string& dir, const SaeParameters& params, const SaeDescription& description);

// The same read again, from the folder of a params.npz. What is missing, or of another type, is not said; the location
// is completed from the names of the folders. An Error for a config.json that is no JSON object and for densities that
// are not `latents` numbers from 0 to 1.
SaeDescription read_sae_description(const std::string& dir, int64_t latents);

}  // namespace gsae
