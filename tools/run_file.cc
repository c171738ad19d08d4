#include "tools/run_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {

namespace {

constexpr int kFormat = 1;
constexpr const char* kName = "/run.json";

}  // namespace

void write_run_file(const std::string& run, const RunFile& file) {
  const nlohmann::ordered_json j = {{"format", kFormat},
                                    {"version", GSAE_VERSION},
                                    {"finished", file.finished},
                                    {"folder", file.given.folder},
                                    {"options", file.given.values}};
  // "replace": a path need not be UTF-8
  write_file(run + kName, j.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

RunFile read_run_file(const std::string& run) {
  std::error_code ignored;
  if (!std::filesystem::exists(run + kName, ignored))
    throw Error(fmt::format("{}: there is no run.json: it is not the folder of a training run", run));
  const nlohmann::json j = read_json(run + kName);
  try {
    if (const nlohmann::json& format = j.at("format"); format != kFormat)
      throw Error(fmt::format("{}{}: is of format {:.40}, and this gemma_sae {} reads format {}", run, kName,
                              format.dump(), GSAE_VERSION, kFormat));
    RunFile file;
    j.at("finished").get_to(file.finished);
    j.at("folder").get_to(file.given.folder);
    j.at("options").get_to(file.given.values);
    return file;
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}{}: is damaged: {}", run, kName, e.what()));
  }
}

}  // namespace gsae
