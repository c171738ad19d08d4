#include "tools/run_defaults.h"

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>

#include "io/json.h"
#include "tools/run_file.h"

namespace gsae {

namespace fs = std::filesystem;

std::string run_of(const std::string& path) {
  constexpr int kDeepest = 6;  // run, site, layer, width, L0, file
  std::error_code error;
  fs::path folder = fs::absolute(path, error).lexically_normal();
  for (int up = 0; up <= kDeepest && folder.has_relative_path(); ++up, folder = folder.parent_path())
    if (fs::exists(folder / "run.json", error)) return folder.string();
  return {};
}

bool take_defaults_of_run(DataOptions& data, const CLI::App& command, const std::string& run) {
  const auto typed = [&](const char* option) { return command.get_option(option)->count() > 0; };
  const nlohmann::json config = read_json(run + "/config.json");
  if (!config.contains("model")) return typed("--model");
  const auto take = [&](const char* option, const char* key, auto& value) {
    if (!typed(option) && config.contains(key)) config.at(key).get_to(value);
  };
  try {
    take("--model", "model", data.model);
    take("--context", "context", data.context);
    take("--text-field", "text_field", data.text_field);
    take("--token-dtype", "token_dtype", data.token_dtype);
    take("--eval-fraction", "eval_fraction", data.eval_fraction);
    take("--skip-bad", "skip_bad", data.skip_bad);
    const bool bundled = !read_run_file(run).given.values.contains("--data");
    if (!bundled) take("--data", "data", data.data);
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}/config.json: is damaged: {}", run, e.what()));
  }
  if (std::find(data.data.begin(), data.data.end(), "-") != data.data.end() && !typed("--data"))
    throw Error(fmt::format("{}: was trained on standard input, which cannot be read again; give --data FILE", run));
  return true;
}

}  // namespace gsae
