#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/run_binary.h"
#include "tests/small_corpus.h"
#include "tools/checkpoint.h"

namespace gsae::test {

using Words = std::vector<std::string>;

inline Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A run of some steps that saves its state after each.
inline Words small_run(const std::string& out, const std::string& data, const Words& more = {}) {
  return Words{"train",
               "--model",
               "demo",
               "--data",
               data,
               "--layer",
               "1",
               "--width",
               "128",
               "--batch",
               "64",
               "--context",
               "32",
               "--model-batch",
               "2",
               "--log-every",
               "3",
               "--eval-contexts",
               "0",
               "--lr",
               "0.002",
               "--seed",
               "3",
               "--threads",
               "1",
               "--quiet",
               "--out",
               out,
               "--buffer",
               "640",
               "--checkpoint-every",
               "64"} +
         more;
}

struct Ended {
  std::map<std::string, std::string> params;  // the bytes of each params.npz, by its path in the run
  std::vector<nlohmann::json> log;            // but for what was measured of the time

  explicit Ended(const std::string& run) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(run))
      if (entry.path().filename() == "params.npz")
        params[std::filesystem::relative(entry.path(), run).string()] = read_bytes(entry.path().string());
    std::istringstream text(read_bytes(run + "/train.jsonl"));
    for (std::string line; std::getline(text, line);) {
      log.push_back(nlohmann::json::parse(line));
      for (const char* time : {"tokens_per_second", "model_seconds", "sae_seconds", "roof_fraction"})
        log.back().erase(time);
    }
  }
  bool operator==(const Ended&) const = default;
};

// Steps that the newest checkpoint of a run has; -1: there is none.
inline int64_t saved_step(const std::string& run) {
  const auto names = list_checkpoints(run + "/checkpoints");
  return names.empty() ? -1 : std::stoll(names[0].substr(names[0].rfind('_') + 1));
}

}  // namespace gsae::test
