#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tools/dashboard_pass.h"

namespace gsae {

// The batches that Neuronpedia imports, as SAEDashboard 0.8 writes them (sae_dashboard/neuronpedia): batch-0.json,
// batch-1.json, ..., 128 latents each, with the keys of its NeuronpediaDashboardBatch. docs/report.md says what each
// value is, and which are left empty.

// Of one SAE: the batch of latents [begin, end) of its dashboards. set: the name of the set of SAEs on Neuronpedia.
nlohmann::ordered_json neuronpedia_batch(const DashboardPass& pass, size_t sae, size_t begin, size_t end,
                                         const std::string& set);

// Writes all SAEs of a pass: DIR/batch-N.json, or, where there are several, DIR/<name of the SAE>/batch-N.json. DIR is
// new or empty. Returns the number of files.
int64_t write_neuronpedia(const DashboardPass& pass, const std::string& dir);

// An Error if it is there and holds something: before the work.
void require_empty_folder(const std::string& option, const std::string& dir);

}  // namespace gsae
