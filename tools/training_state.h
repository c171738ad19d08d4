#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/file_stamp.h"
#include "sae/outlier_watch.h"
#include "sae/row_order.h"
#include "sae/sae_trainer.h"
#include "tools/row_source.h"

namespace gsae {

// What a run of `train` is at one moment, but for its tensors: what another process needs to go on as if it had never
// stopped. As JSON it is the record of a checkpoint (tools/checkpoint.h).
struct TrainingState {
  // How the run is cut, by the memory that there was when it began: another cut would change its bits.
  struct PassSizes {
    std::vector<size_t> saes;  // of the suite
    int64_t buffer_rows = 0;
    int64_t contexts = 0;  // of a forward pass
  };
  std::vector<PassSizes> passes;
  std::string device;
  std::vector<FileStamp> inputs;  // the model and the data

  struct Result {
    size_t sae = 0;  // of the suite
    double l0 = 0, lambda = 0, input_scale = 0;
  };
  std::vector<Result> results;  // of the passes before

  int64_t pass = 1, step = 0;  // `step` steps of that pass are done; beyond the last pass: all are
  bool filled = false;         // that pass has begun: there are tensors, and what follows
  int64_t log_bytes = 0;       // of train.jsonl

  double seconds = 0, model_seconds = 0, sae_seconds = 0;  // of that pass so far
  int64_t model_rows = 0;
  double sae_flops = 0;
  int64_t arrived = 0, epoch = 0;
  SourcePosition source;                     // but for its tokens, which are tensors
  RowOrder::State order;                     // but for its slots, likewise
  bool has_rows = true;                      // of the buffer, as tensors; else the tokens that they were computed from
  std::vector<double> scales;                // of the places
  std::vector<OutlierWatch::Seen> outliers;  // likewise

  struct Sae {
    SaeTrainer::Progress progress;
    double tail_l0 = 0;  // sum over the rows of the last tenth
    int64_t tail_rows = 0;
    double l0 = 0, lambda = 0;  // as last reported
  };
  std::vector<Sae> saes;  // of that pass
};

nlohmann::ordered_json to_json(const TrainingState& state);
// An Error says which part of the record is missing or of the wrong kind; `what` begins it.
TrainingState training_state(const nlohmann::json& record, const std::string& what);
// An Error unless the passes hold each SAE of a suite of so many once, and every size and count is one that a run can
// have: the record comes from a file.
void check_fits(const TrainingState& state, size_t saes, const std::string& what);

}  // namespace gsae
