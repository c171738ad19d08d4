#pragma once

#include <vector>

#include "sae/inference.h"
#include "tools/sae_choice.h"

namespace gsae {

// The strongest latents of an SAE at each position that passes by: a hook keeps the rows, read() encodes them.
class LatentReader {
 public:
  struct Activation {
    int64_t latent = 0;
    float value = 0;
  };

  // `most`: rows of a pass. Loads the SAE onto the device, where it will all take so many bytes.
  static int64_t bytes(const SaeFile& sae, int64_t most);
  LatentReader(Context& ctx, const ChosenSae& sae, int64_t most);
  const ChosenSae& sae() const { return sae_; }

  Hook hook();
  // Of the first `rows` rows of the last pass: up to `top` latents that are active, the strongest first.
  std::vector<std::vector<Activation>> read(Context& ctx, int64_t rows, int64_t top);

 private:
  ChosenSae sae_;
  LoadedSae loaded_;
  Buffer memory_;
  Tensor rows_;  // (most, d) f32
  Tensor f_;     // (tile, F) f32
};

}  // namespace gsae
