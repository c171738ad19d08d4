#pragma once

#include <string>

namespace CLI {
class App;
}

namespace gsae {

// Gives a command the options of a TOML file: `width = "16k"` is --width 16k, `quiet = true` is --quiet. What was typed
// on the command line wins, also over an option of the file that excludes it (--steps over `tokens`). Called in the
// command's callback, before the options are used. A UsageError for a key that is not an option, or a section.
void read_config_file(CLI::App& command, const std::string& path);

}  // namespace gsae
