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

// Writes those of one SAE of a pass: DIR/batch-N.json. Returns the number of files.
int64_t write_neuronpedia(const DashboardPass& pass, size_t sae, const std::string& dir, const std::string& set);

// The model's name there, without its owner, from a hub id or a folder. An Error if there is none.
std::string neuronpedia_model(const std::string& model);

// "res.3/4k/l0_32" -> "res.3-4k-l0_32": the name of a set, and of a folder.
std::string neuronpedia_set(std::string name);

}  // namespace gsae
