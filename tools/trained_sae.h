#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "sae/sae_file.h"
#include "sae/sae_state.h"
#include "tools/evaluate.h"

namespace gsae {

// One SAE that a run ends with, folded, where other tools find it: DIR/layer_20/width_16k/average_l0_71, below
// DIR/res/ and so on if the run's SAEs are of several sites. Two that would share a name get digits, average_l0_71.3,
// and where four of them do not tell them apart a number, average_l0_71_2: nothing is ever overwritten.
class TrainedSae {
 public:
  struct Folder {
    std::string run;             // DIR
    bool several_sites = false;  // of the run
    bool alone = true;           // its only SAE
  };

  // description: but for average_l0.
  TrainedSae(const Folder& folder, const SaeDescription& description, int64_t latents);

  // Folds the parameters and writes them; the host's memory holds them meanwhile alone.
  void write(Context& ctx, const SaeState& trained, double l0);
  // The same for a run that was stopped: DIR/interrupted/step_1234, and below it like that if it is not alone.
  void write_interrupted(Context& ctx, const SaeState& trained, double l0, int64_t step);

  // Where an earlier process of the same run wrote it; empty if none did.
  std::string find() const;
  // Removes that, and what was half-written there when it was killed: it will be written again.
  void discard() const;
  // Takes what was found there as what this one would have written.
  void adopt(const std::string& path, int64_t width, double l0);

  // Once written.
  const std::string& path() const { return path_; }
  EvaluationTarget target() const;  // reads it back
  // Adds eval.json, the density of each latent, and what they say about the L0, which the folder is named after.
  void add_evaluation(double l0, std::vector<float> density, const nlohmann::ordered_json& evaluation);

 private:
  std::string parent(const std::string& dir) const;
  void write_to(Context& ctx, const SaeState& trained, const std::string& path);

  Folder folder_;
  std::string path_;
  SaeDescription description_;
  int64_t width_ = 0, latents_ = 0;
};

// A folder of `parent` for an SAE of this L0 that is not there yet, or is `own`.
std::string unused_l0_folder(const std::string& parent, double l0, const std::string& own = "");

}  // namespace gsae
