#pragma once

#include <string>
#include <vector>

#include "model/gemma2.h"
#include "sae/sae_file.h"

namespace gsae {

// The one SAE that a path means: a file or folder that holds one, or RUN/NAME for the one that the training run in RUN
// calls so (res.3/4k/l0_32). An Error lists those that it may have meant.
SaeFile choose_sae(const std::string& path);

// Where an SAE reads.
struct SaePlace {
  Site site = Site::kRes;
  int64_t layer = 0;
  bool operator==(const SaePlace&) const = default;
};

// An SAE that a command is about, by the path that was given for it.
struct ChosenSae {
  std::string given;
  SaeFile file;
  SaePlace place;
};

// By its file, and for what that does not say by the options --layer and --site (empty: not given). An Error that names
// both sides if the model has no such layer, or activations of another width there; a UsageError if neither says.
SaePlace place_of(const SaeFile& sae, const Gemma2& model, const std::string& model_name, const std::string& layer,
                  const std::string& site);

// A UsageError if --layer or --site is given and no SAE takes it: if there is none, or all read elsewhere.
void require_use_of_place(const std::vector<ChosenSae>& saes, const std::string& layer, const std::string& site);

}  // namespace gsae
