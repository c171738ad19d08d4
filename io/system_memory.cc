#include "io/system_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

#include "kernels/check.h"

namespace gsae {

namespace {

std::optional<size_t> read_number(const std::string& path) {
  std::ifstream file(path);
  size_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // no such file, or "max"
}

// The number after `key` at the start of a line: "MemTotal:   24689132 kB", "inactive_file 4096".
std::optional<size_t> read_field(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    size_t value = 0;
    if (words >> word >> value && word == key) return value;
  }
  return std::nullopt;
}

// "0::/user.slice/run-1.scope" -> "/user.slice/run-1.scope"
std::string own_group(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::/")) return line == "0::/" ? "" : line.substr(3);
  return "";
}

}  // namespace

SystemMemory system_memory(const std::string& root) {
  const auto total = read_field(root + "/proc/meminfo", "MemTotal:");
  const auto available = read_field(root + "/proc/meminfo", "MemAvailable:");
  CHECK(total && available,
        root + "/proc/meminfo: MemTotal or MemAvailable is not there (Linux 3.14 and later have it)");
  SystemMemory memory{*total << 10, *available << 10};

  std::string group = own_group(root);
  for (;;) {  // every group up to the root may set a limit
    const std::string folder = root + "/sys/fs/cgroup" + group;
    const auto limit = read_number(folder + "/memory.max");
    const auto used = read_number(folder + "/memory.current");
    if (limit && used) {
      const size_t cache = read_field(folder + "/memory.stat", "inactive_file").value_or(0);
      const size_t held = *used - std::min(*used, cache);
      memory.total = std::min(memory.total, *limit);
      memory.available = std::min(memory.available, *limit - std::min(*limit, held));
    }
    if (group.empty()) return memory;
    group.resize(group.rfind('/'));
  }
}

}  // namespace gsae
