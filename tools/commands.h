#pragma once

#include <string>

namespace CLI {
class App;
}

namespace gsae {

// All commands of gemma_sae, with their options, in the order of --help.
void add_commands(CLI::App& app);

// All of them as Markdown: docs/commands.md, which a test compares.
std::string reference(const CLI::App& app);

}  // namespace gsae
