#pragma once

#include "kernels/latent_update.h"
#include "sae/recipe.h"

namespace gsae {

// What a recipe says of the latents' update.
inline LatentUpdateOptions latent_options(const Recipe& r) {
  return {.epsilon = static_cast<float>(r.epsilon),
          .decoder_rate = static_cast<float>(r.decoder_rate),
          .threshold_rate = static_cast<float>(r.threshold_rate)};
}

}  // namespace gsae
