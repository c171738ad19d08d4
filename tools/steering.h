#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/steer.h"
#include "tools/sae_choice.h"

namespace gsae {

// What one option asks of one latent.
struct Edit {
  std::string option;  // --steer, --clamp or --ablate
  std::string sae;     // as choose_sae() takes it
  int64_t latent = 0;
  double value = 0;  // the strength, or the activation

  bool clamps() const { return option != "--steer"; }
};

// "SAE:latent=value", for --ablate "SAE:latent". A UsageError shows how it should look.
Edit parse_edit(const std::string& option, const std::string& text);

// The edits of a model's activations, ready to run on its device: at each place all of them at once, computed from the
// activations as they come,
//
//   x += sum of strength W_dec[latent] + sum of (value - f[latent](x)) W_dec[latent]
class Steering {
 public:
  // Loads the SAEs, one at a time, and keeps those latents of them. An Error names a latent that is out of range; a
  // UsageError one that two edits are about.
  Steering(Context& ctx, const std::vector<Edit>& edits, const std::vector<ChosenSae>& saes);

  // Hooks that move all rows from `skipped()` on: of a pass over the first positions 1, as the first is BOS, else 0.
  std::vector<Hook> hooks(const std::function<int64_t()>& skipped);

 private:
  struct AtPlace {
    SaePlace place;
    Buffer memory;
    SteeredLatents latents;
  };
  std::vector<AtPlace> places_;
};

nlohmann::ordered_json to_json(const Edit& edit);

}  // namespace gsae
