#include "tools/distinct_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <span>

namespace gsae {

namespace {

namespace fs = std::filesystem;
using Folders = std::vector<std::string>;

Folders folders_of(const std::string& path) {
  std::error_code ignored;
  Folders folders;
  if (!path.empty())
    for (const fs::path& part : fs::absolute(path, ignored).lexically_normal())
      if (!part.empty()) folders.push_back(part.string());  // "run/" ends with an empty one
  return folders;
}

// How many folders all of them begin with.
template <class Begin> size_t common(const std::vector<Folders>& all, Begin begin) {
  size_t n = all[0].size();
  for (const Folders& f : all) {
    const auto most = static_cast<std::ptrdiff_t>(std::min(n, f.size()));
    n = static_cast<size_t>(std::mismatch(begin(f), begin(f) + most, begin(all[0])).first - begin(f));
  }
  return n;
}

// Of each path what is left without the folders that all begin with, and those that all end with.
std::vector<std::string> differing_parts(const std::vector<Folders>& all) {
  const size_t first = common(all, [](const Folders& f) { return f.begin(); });
  size_t last = common(all, [](const Folders& f) { return f.rbegin(); });
  for (const Folders& f : all) last = std::min(last, f.size() - first);
  std::vector<std::string> parts;
  for (const Folders& f : all)
    parts.push_back(fmt::format("{}", fmt::join(std::span(f).subspan(first, f.size() - last - first), "/")));
  return parts;
}

}  // namespace

std::vector<std::string> distinct_names(std::vector<std::string> names, const std::vector<std::string>& paths) {
  std::map<std::string, std::vector<size_t>> of_name;
  for (size_t i = 0; i < names.size(); ++i) of_name[names[i]].push_back(i);
  for (const auto& [name, those] : of_name) {
    if (those.size() == 1) continue;
    std::vector<Folders> folders;
    for (const size_t i : those) folders.push_back(folders_of(paths[i]));
    const std::vector<std::string> parts = differing_parts(folders);
    for (size_t k = 0; k < those.size(); ++k)
      if (!parts[k].empty()) names[those[k]] += fmt::format(" ({})", parts[k]);
  }
  std::set<std::string> taken;
  for (std::string& name : names) {
    const std::string alike = name;
    for (int number = 2; !taken.insert(name).second; ++number) name = fmt::format("{}-{}", alike, number);
  }
  return names;
}

}  // namespace gsae
