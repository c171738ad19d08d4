#include "sae/sae_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "kernels/checkf.h"
#include "sae/sae_format.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

// In this order: a folder that has files of two is taken for the first.
constexpr std::array kFormats{&kGemmaScope, &kGemmaScope2, &kSaeLens, &kDictionaryLearning, &kCircuitTracer};

const SaeFormat& format_named(const std::string& name) {
  for (const SaeFormat* f : kFormats)
    if (name == f->name) return *f;
  throw Error(fmt::format("'{}' is no format of SAEs: {}", name, fmt::join(sae_formats(), ", ")));
}

constexpr int kDeepest = 6;
constexpr size_t kMostFolders = 50'000;

// Every SAE at or below `dir`. Folders are few: a run holds one level each for site, layer, width and L0. seen: the
// folders that were looked at, because a link may lead to one of them.
void find_saes(const std::string& dir, const std::string& format, int depth, std::set<fs::path>& seen,
               std::vector<SaeSource>& found) {
  std::error_code error, ignored;
  if (const fs::path real = fs::canonical(dir, ignored); !ignored && !seen.insert(real).second) return;
  if (seen.size() > kMostFolders)
    throw Error(
        fmt::format("{}: is one of more than {} folders, which is no folder of SAEs; give the one that holds them", dir,
                    kMostFolders));
  const fs::directory_iterator entries(dir, error);
  if (error) throw Error(fmt::format("{}: cannot be read: {}", dir, error.message()));
  for (SaeSource& place : saes_in(dir, format)) found.push_back(std::move(place));
  if (depth == kDeepest) return;
  std::vector<fs::path> folders;
  for (const auto& entry : entries)
    if (entry.is_directory(ignored) && entry.path().filename() != "checkpoints") folders.push_back(entry.path());
  std::sort(folders.begin(), folders.end());
  for (const fs::path& folder : folders) find_saes(folder.string(), format, depth + 1, seen, found);
}

SaeSource place_of_file(const std::string& file, const std::string& format) {
  for (const SaeFormat* f : kFormats)
    if (std::string path; (format.empty() || format == f->name) && f->takes(file, path))
      return {path, std::string(f->name)};
  throw Error(fmt::format("{}: is not an SAE{}: that would be {}", file,
                          format.empty() ? "" : " in the format " + format,
                          format.empty() ? sae_file_names() : std::string(format_named(format).files)));
}

std::vector<SaeSource> places(const std::string& path, const std::string& format) {
  if (!format.empty()) format_named(format);
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw Error(fmt::format("{}: no such file or folder; an SAE is {}, or a folder that holds such files", path,
                            sae_file_names()));
  if (!fs::is_directory(path, ignored)) return {place_of_file(path, format)};
  std::vector<SaeSource> found;
  std::set<fs::path> seen;
  find_saes(path, format, 0, seen, found);
  if (found.empty())
    throw Error(fmt::format("{}: holds no SAE: no {}, here or in the folders below it, down to the {}th", path,
                            format.empty() ? sae_file_names() : std::string(format_named(format).files), kDeepest));
  return found;
}

LoadedSae load(const SaeSource& place) { return format_named(place.format).load(place.path); }

}  // namespace

std::vector<std::string> sae_formats(bool written) {
  std::vector<std::string> names;
  for (const SaeFormat* f : kFormats)
    if (!written || f->write) names.emplace_back(f->name);
  return names;
}

std::string sae_file_names() {
  std::string text;
  for (const SaeFormat* f : kFormats) text += fmt::format("{}{}", text.empty() ? "" : ", ", f->files);
  return text;
}

std::vector<SaeSource> saes_in(const std::string& dir, const std::string& format) {
  for (const SaeFormat* f : kFormats) {
    if (!format.empty() && format != f->name) continue;
    std::vector<SaeSource> found;
    for (std::string& path : f->find(dir)) found.push_back({std::move(path), std::string(f->name)});
    if (!found.empty()) return found;
  }
  return {};
}

std::string parameters_file(const SaeSource& place) { return format_named(place.format).parameters(place.path); }

std::vector<LoadedSae> load_saes(const std::string& path) {
  std::vector<LoadedSae> saes;
  for (const SaeSource& place : places(path, "")) saes.push_back(load(place));
  return saes;
}

std::vector<SaeFile> list_saes(const std::string& path, const std::string& format) {
  std::vector<SaeFile> saes;
  for (const SaeSource& place : places(path, format)) {
    saes.push_back(format_named(place.format).list(place.path));
    saes.back().format = place.format;
  }
  return saes;
}

LoadedSae load_sae(const SaeFile& file) {
  return load(file.format.empty() ? places(file.path, "").at(0) : SaeSource{file.path, file.format});
}

SaeDescription describe_sae(const SaeFile& file) {
  if (!file.format.empty()) return format_named(file.format).describe(file);
  return format_named(places(file.path, "").at(0).format).describe(file);
}

void move_to_device(Context& ctx, LoadedSae& sae) {
  Buffer memory;
  const SaeParameters params = on_device(ctx, sae.params, memory);
  if (memory.size() > 0) sae.memory = std::move(memory);
  sae.params = params;
}

void write_sae_folder(const std::string& dir, const SaeParameters& params, const SaeDescription& description,
                      const std::string& format) {
  const SaeFormat& f = format_named(format);
  CHECKF(f.write, "the format {} is only read", format);
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw Error(fmt::format("{}: {}", dir, error.message()));
  f.write(dir, params, description);
}

}  // namespace gsae
