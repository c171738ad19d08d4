#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sae/recipe.h"
#include "tools/row_source.h"
#include "tools/train_options.h"

namespace gsae {

// One SAE of the suite: what is its own.
struct SaeRecord {
  SuiteMember member;
  int64_t width = 0;       // d
  double input_scale = 0;  // C
  Recipe recipe;
};

// What `train` has decided and found out.
struct Run {
  TrainOptions options;
  TrainPlan plan;
  std::string model_folder;  // empty: saved activations
  std::vector<std::string> data_files;
  std::vector<std::string> inputs;      // files that the run depends on
  bool can_go_on = true;                // in another process: none of its data is standard input
  std::vector<SaeRecord> saes;          // the suite; input_scale 0: not calibrated yet
  double model_peak = 0, sae_peak = 0;  // FLOP/s that this device reaches in their products
};

// One pass over the data, and those of the suite's SAEs that are trained in it.
struct Pass {
  std::vector<size_t> saes;     // of Run::saes; those of one place are neighbours
  std::vector<Place> places;    // of these SAEs, in their order
  std::vector<int64_t> widths;  // of the places
  int64_t number = 1, of = 1;

  int64_t steps_done = 0;
  bool saved = false;   // the last checkpoint that was meant to be written was
  std::string stopped;  // why it ended early, if it did and something was trained
  struct Outcome {
    double l0 = 0;      // mean over the last tenth of the steps, in whole intervals of the log
    double lambda = 0;  // of the last step
  };
  std::vector<Outcome> outcomes;  // of these SAEs
};

}  // namespace gsae
