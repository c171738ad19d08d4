#include "tools/run_folder.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {

namespace fs = std::filesystem;

RunFolder::RunFolder(const std::string& path) : path_(path) {
  for (const char* file : {"config.json", "train.jsonl"})
    if (fs::exists(fs::path(path) / file))
      throw Error(
          fmt::format("--out {}: holds a run already ({}); choose another folder, or remove it first", path, file));
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw Error(fmt::format("--out {}: cannot create the folder: {}", path, error.message()));
}

RunFolder::~RunFolder() {
  if (log_) std::fclose(log_);
}

void RunFolder::require_space(int64_t bytes) const {
  std::error_code error;
  const fs::space_info space = fs::space(path_, error);
  if (!error && space.available < static_cast<uintmax_t>(bytes))
    throw Error(
        fmt::format("--out {}: the result needs {:.1f} MB, but only {:.1f} MB are free there; free some space or "
                    "choose another folder",
                    path_, double(bytes) / 1e6, double(space.available) / 1e6));
}

void RunFolder::write_config(const nlohmann::json& config) {
  write_file(path_ + "/config.json", config.dump(2) + "\n");
  const std::string name = path_ + "/train.jsonl";
  log_ = std::fopen(name.c_str(), "wxe");
  if (!log_) throw Error(fmt::format("cannot create {}: {}", name, std::strerror(errno)));
}

bool RunFolder::log(const nlohmann::json& line) {
  const std::string text = line.dump() + "\n";
  return std::fwrite(text.data(), 1, text.size(), log_) == text.size() && std::fflush(log_) == 0;
}

}  // namespace gsae
