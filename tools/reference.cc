#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <set>

#include "tools/commands.h"
#include "tools/console.h"
#include "tools/options.h"

namespace gsae {

namespace {

// In a cell of a table.
std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c == '\n' ? ' ' : c;
  }
  return escaped;
}

std::string row(const CLI::Option& option) {
  const bool flag = option.get_items_expected_max() == 0;
  const std::string value = flag ? "" : option.get_default_str();
  std::set<std::string> others;  // the library's set is ordered by addresses
  for (const CLI::Option* other : option.get_excludes()) others.insert(other->get_name());
  std::string excluded;
  for (const std::string& other : others) excluded += " `" + other + "`";
  std::string what = cell(option.get_description());
  if (!excluded.empty()) what += "; not with" + excluded;
  if (option.get_required()) what += "; required";
  return fmt::format("| `{}` | {} | {} |\n", option.get_name(option.get_positional()),
                     value.empty() ? "" : "`" + cell(value) + "`", what);
}

}  // namespace

std::string reference(const CLI::App& app) {
  std::string text = fmt::format(
      "# Commands\n\n{} Written by `gemma_sae reference` from the definitions that `gemma_sae COMMAND --help` "
      "prints.\n\nCounts take k, M and G (500M = 5e8 tokens), sizes such as widths k and m (16k = 16384). Exit status: "
      "0; "
      "1 for what went wrong; 2 for a command line that cannot be meant; 130 and 143 after Ctrl-C and SIGTERM.\n",
      app.get_description());
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    text += fmt::format("\n## {}\n\n{}.\n\n| option | default | |\n|---|---|---|\n", command->get_name(),
                        command->get_description());
    for (const CLI::Option* option : command->get_options())
      if (option->get_name() != "--help") text += row(*option);
  }
  return text;
}

void add_reference(CLI::App& app) {
  CLI::App* command = app.add_subcommand("reference", "prints all commands and options, as docs/commands.md has them");
  command->callback([&app] { print(stdout, reference(app)); });
}

}  // namespace gsae
