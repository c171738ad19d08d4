#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>

#include "io/hub.h"
#include "tools/describe.h"
#include "tools/options.h"

namespace gsae {
namespace {

// A path, or a model by the name that --model takes.
std::string locate(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) return path;
  try {
    return find_model(path);
  } catch (const Error&) {
    throw Error(fmt::format("{}: no such file or folder, and no model of this name in the Hugging Face cache", path));
  }
}

}  // namespace

void add_info(CLI::App& app) {
  struct Options {
    CommonOptions common;
    std::vector<std::string> paths;
    bool json = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("info", "says what a file or folder holds: models, SAEs, runs, tensors");
  options->common.add(*command);
  command->add_option("path", options->paths, "files, folders, or models by the name that --model takes")->required();
  command->add_flag("--json", options->json, "print one JSON object per line instead");
  command->callback([options] {
    bool first = true;
    for (const std::string& path : options->paths) {
      const nlohmann::ordered_json description = describe(locate(path));
      if (options->json) {
        fmt::print("{}\n", description.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
      } else {
        fmt::print("{}{}", first ? "" : "\n", render(description));
        first = false;
      }
    }
  });
}

}  // namespace gsae
