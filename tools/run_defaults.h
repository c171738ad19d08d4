#pragma once

#include <string>

#include "tools/data_options.h"

namespace gsae {

// The training run that `path` is, or lies in: the nearest folder, from there upwards, with a run.json. Empty: none.
std::string run_of(const std::string& path);

// Gives a command that looks at what a run has made the run's model, data and contexts, where the command line says
// nothing of them; so that held out is what the run held out. An Error if the run's data were standard input.
// False: the run was trained from saved activations, and the command line names no model.
bool take_defaults_of_run(DataOptions& data, const CLI::App& command, const std::string& run);

}  // namespace gsae
