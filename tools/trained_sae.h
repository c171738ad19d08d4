#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "kernels/memory.h"
#include "sae/sae_file.h"

namespace gsae {

// What a run ends with: the folded SAE, where other tools find it, DIR/layer_20/width_16k/average_l0_71; or, of a run
// that was stopped, DIR/interrupted/step_1234.
class TrainedSae {
 public:
  // Takes its own copy of the trained parameters: their memory may go. description: but for average_l0.
  TrainedSae(Context& ctx, const SaeParameters& trained, const std::string& run_folder,
             const SaeDescription& description);

  const SaeParameters& folded() const { return folded_; }
  const std::string& path() const { return path_; }  // once written

  void write(double l0);
  void write_interrupted(double l0, int64_t step);
  // Adds eval.json and what it says about the L0, which the folder is named after.
  void add_evaluation(double l0, const nlohmann::ordered_json& evaluation);

 private:
  std::string named(double l0) const;
  void write_to(const std::string& path);

  std::string run_folder_, path_;
  SaeDescription description_;
  Buffer memory_;
  SaeParameters folded_;
};

}  // namespace gsae
