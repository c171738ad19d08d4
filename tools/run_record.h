#pragma once

#include <nlohmann/json_fwd.hpp>

#include "sae/sae_trainer.h"
#include "tools/training.h"

namespace gsae {

// config.json of a run: everything that was decided, options and defaults alike.
nlohmann::ordered_json config_json(const Run& run, int64_t width, int64_t buffer_rows);

// A line of train.jsonl, but for what was measured of the time.
nlohmann::ordered_json metrics_json(int64_t step, int64_t batch, const StepMetrics& metrics);

}  // namespace gsae
