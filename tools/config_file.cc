#include "tools/config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <set>

#include "tools/options.h"

namespace gsae {

// By hand, because CLI11 reads configuration files for the program alone, not for its subcommands.
void read_config_file(CLI::App& command, const std::string& path) {
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(path);
  } catch (const CLI::Error& e) {
    throw UsageError(fmt::format("--config {}: {}", path, e.what()));
  }
  std::set<const CLI::Option*> typed;
  for (const CLI::Option* option : command.get_options())
    if (option->count() > 0) typed.insert(option);

  for (const CLI::ConfigItem& item : items) {
    if (!item.parents.empty())
      throw UsageError(
          fmt::format("{}: [{}]: there are no sections; every line is an option of {}, such as "
                      "width = \"16k\"",
                      path, item.parents.front(), command.get_name()));
    CLI::Option* option = command.get_option_no_throw("--" + item.name);
    if (!option || item.name == "config" || item.name == "help")
      throw UsageError(fmt::format("{}: '{}' is no option of {}; gemma_sae {} --help lists them", path, item.name,
                                   command.get_name(), command.get_name()));
    const auto& rivals = option->get_excludes();
    const auto overruled = [&](const CLI::Option* o) { return typed.count(o) > 0; };
    if (overruled(option) || std::any_of(rivals.begin(), rivals.end(), overruled)) continue;
    for (const CLI::Option* rival : rivals)
      if (rival->count() > 0)
        throw UsageError(fmt::format("{}: {} and {} exclude each other", path, option->get_name(), rival->get_name()));
    if (option->get_expected_min() == 0) {  // a flag
      if (item.inputs.size() != 1 || (item.inputs[0] != "true" && item.inputs[0] != "false"))
        throw UsageError(fmt::format("{}: {} must be true or false", path, item.name));
      if (item.inputs[0] == "false") continue;
      option->add_result(option->get_flag_value(item.name, "true"));
    } else if (option->get_expected_max() == 1) {
      option->add_result(fmt::format("{}", fmt::join(item.inputs, ",")));  // width = ["16k", "65k"]
    } else {
      option->add_result(item.inputs);
    }
    option->run_callback();  // converts and checks, as for the command line
  }
}

}  // namespace gsae
