#pragma once

#include <string>

#include "tools/given_options.h"

namespace gsae {

// RUN/run.json: what a run was asked for, and whether it has finished. What it decided is in config.json.
struct RunFile {
  GivenOptions given;
  bool finished = false;
};

void write_run_file(const std::string& run, const RunFile& file);
// An Error if `run` is no folder of a run, or of one that is not written like this.
RunFile read_run_file(const std::string& run);

}  // namespace gsae
