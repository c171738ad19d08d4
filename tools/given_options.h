#pragma once

#include <map>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace gsae {

// The options of `train` as they were given, on the command line or in --config; the others have their defaults. With
// them a run goes on later: RUN/run.json.
struct GivenOptions {
  std::map<std::string, std::vector<std::string>> values;  // by name: --layer
  std::string folder;                                      // that paths among them are relative to
};

// All that were given, but for those that say where and how to go on: --out, --resume, --config.
GivenOptions given_options(const CLI::App& command);

// Gives `command` the options of a run that is to go on, as if they had been typed; those that are typed now win where
// the run stays the same: how often it logs, saves and reports, --threads, --device, --eval-contexts, --tokens. A
// UsageError lists all others that differ, with both values.
void add_given(CLI::App& command, const GivenOptions& run);

}  // namespace gsae
