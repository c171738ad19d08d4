#include "tools/given_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <set>

#include "tools/options.h"

namespace gsae {

namespace fs = std::filesystem;

namespace {

const std::set<std::string> kOfThisCall{"--out", "--resume", "--config", "--help"};
const std::set<std::string> kHarmless{"--threads", "--quiet",  "--log-every",     "--checkpoint-every",
                                      "--keep",    "--device", "--eager",         "--profile-steps",
                                      "--tokens",  "--steps",  "--eval-contexts", "--eval-loss-contexts"};
const std::set<std::string> kLength{"--tokens", "--steps"};
const std::set<std::string> kPaths{"--model", "--data", "--activations", "--init"};

std::string name_of(const CLI::Option& option) { return option.get_name(false, false); }

// Where the run's folder was when it began.
std::string resolved(const std::string& value, const std::string& folder) {
  std::error_code error;
  const fs::path path = fs::path(folder) / value;
  const bool moved = fs::path(value).is_relative() && fs::current_path(error) != folder;
  return moved && value != "demo" && value != "-" && fs::exists(path, error) ? path.lexically_normal().string() : value;
}

std::vector<std::string> values_of(const std::string& name, const GivenOptions& run) {
  std::vector<std::string> values = run.values.at(name);
  if (kPaths.count(name))
    for (std::string& value : values) value = resolved(value, run.folder);
  return values;
}

std::string shown(const std::vector<std::string>& values) { return fmt::format("{}", fmt::join(values, " ")); }

}  // namespace

GivenOptions given_options(const CLI::App& command) {
  GivenOptions given;
  std::error_code ignored;
  given.folder = fs::current_path(ignored).string();
  for (const CLI::Option* option : command.get_options())
    if (const std::string name = name_of(*option); option->count() > 0 && !kOfThisCall.count(name))
      given.values[name] = option->results();
  return given;
}

void add_given(CLI::App& command, const GivenOptions& run) {
  const GivenOptions typed = given_options(command);
  const auto is_typed = [&](const std::string& name) { return typed.values.count(name) > 0; };
  const bool other_length = std::any_of(kLength.begin(), kLength.end(), is_typed);
  std::vector<std::string> changed;
  for (const auto& [name, values] : typed.values) {
    if (kHarmless.count(name)) continue;
    const auto was = run.values.find(name);
    if (was != run.values.end()) {
      if (was->second != values && values_of(name, run) != values)
        changed.push_back(fmt::format("{} {} (it was {})", name, shown(values), shown(was->second)));
    } else if (shown(values) != command.get_option(name)->get_default_str()) {
      changed.push_back(fmt::format("{} {} (it was not given)", name, shown(values)));
    }
  }
  if (!changed.empty())
    throw UsageError(
        fmt::format("these options would make another run of it: {}; leave them out to go on, or start a "
                    "new run with another --out",
                    fmt::join(changed, ", ")));
  for (const auto& [name, values] : run.values) {
    if (is_typed(name) || (other_length && kLength.count(name))) continue;
    CLI::Option* option = command.get_option_no_throw(name);
    if (!option || kOfThisCall.count(name))
      throw UsageError(
          fmt::format("the run was started with {}, which this gemma_sae {} does not know", name, GSAE_VERSION));
    option->add_result(values_of(name, run));
    option->run_callback();
  }
}

}  // namespace gsae
