#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "sae/sae_file.h"

namespace gsae {

// An SAE of a run, or one by itself, and what is known of it.
struct SaeResult {
  std::string name;                   // in the run's train.jsonl, or after its place and width
  std::vector<SaeFile> file;          // one; none: it is not there yet
  nlohmann::ordered_json training;    // its part of the run's config.json; null: it has none
  nlohmann::ordered_json curves;      // {"tokens": [...], "loss": [...], ...}; null: there are none
  nlohmann::ordered_json evaluation;  // eval.json beside it; null: there is none
};

// A folder that a report is about: a training run, or SAEs without one (Gemma Scope's, SAELens').
struct RunResults {
  std::string path, name;
  bool is_run = false, finished = true;
  nlohmann::ordered_json config;   // of a run; null
  std::vector<std::string> notes;  // what is missing, and why
  std::vector<SaeResult> saes;
};

// layer, site: of SAEs without a run whose files do not say where they read; empty: not given. An Error if `path` is
// neither a run nor holds an SAE, or if one of its files is damaged; a UsageError if such a file says otherwise.
RunResults read_run_results(const std::string& path, const std::string& layer, const std::string& site);

// The most points of a curve; more lines of a log are averaged, neighbours together.
constexpr int64_t kMostPoints = 400;

}  // namespace gsae
