#include "tools/output_option.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {

namespace fs = std::filesystem;

void require_new_file(const std::string& option, const std::string& path, bool force) {
  const OutputFile probe(path);
  if (!force && fs::exists(path))
    throw Error(fmt::format("{} exists already; give another {}, or --force to replace it", path, option));
}

void require_empty_folder(const std::string& option, const std::string& dir) {
  std::error_code error;
  if (fs::exists(dir, error)) {
    if (!fs::is_directory(dir, error)) throw Error(fmt::format("{} {}: is a file; it needs a folder", option, dir));
    if (!fs::is_empty(dir, error)) throw Error(fmt::format("{} {}: is not empty; choose a new folder", option, dir));
  }
  fs::path there = fs::absolute(dir, error).lexically_normal();
  while (!fs::exists(there, error) && there.has_relative_path()) there = there.parent_path();
  if (!fs::is_directory(there, error))
    throw Error(fmt::format("{} {}: {} is a file; choose a folder below another", option, dir, there.string()));
  if (access(there.c_str(), W_OK | X_OK) != 0)
    throw Error(fmt::format("{} {}: {} cannot be written to; choose another folder", option, dir, there.string()));
}

}  // namespace gsae
