#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "sae/sae_trainer.h"
#include "tools/run.h"

namespace gsae {

// config.json of a run: everything that was decided, options and defaults alike; what the SAEs share, and "saes", an
// object for each, in the order of the suite.
nlohmann::ordered_json config_json(const Run& run, std::span<const SaeRecord> saes, int64_t buffer_rows);

// A line of train.jsonl, one SAE's at one step, but for what was measured of the time.
nlohmann::ordered_json metrics_json(const std::string& sae, int64_t step, int64_t batch, const StepMetrics& metrics);

}  // namespace gsae
