#include "tools/run_results.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <map>
#include <string_view>

#include "io/json.h"
#include "io/mapped_file.h"
#include "tools/locate_sae.h"
#include "tools/options.h"
#include "tools/run_file.h"

namespace gsae {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

// What of a line is drawn.
constexpr const char* kCurves[] = {"tokens", "loss", "l0", "fvu", "dead", "lambda", "lr"};

bool is_file(const std::string& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

double number(const nlohmann::json& line, const char* key) {
  const auto value = line.find(key);
  return value != line.end() && value->is_number() ? value->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

using Lines = std::vector<std::array<double, std::size(kCurves)>>;

// The whole lines of train.jsonl, by SAE: of a run that is going on the last may be half-written.
std::map<std::string, Lines> read_log(const std::string& path) {
  std::map<std::string, Lines> log;
  std::error_code ignored;
  if (fs::file_size(path, ignored) == 0) return log;  // nothing to map
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  int64_t number_of_line = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    const nlohmann::json line =
        parse_json(fmt::format("{}:{}", path, ++number_of_line), text.substr(begin, end - begin));
    if (!line.is_object()) throw Error(fmt::format("{}:{}: is not a JSON object", path, number_of_line));
    const auto sae = line.find("sae");
    auto& values = log[sae != line.end() && sae->is_string() ? sae->get<std::string>() : ""].emplace_back();
    for (size_t c = 0; c < values.size(); ++c) values[c] = number(line, kCurves[c]);
  }
  return log;
}

Json rounded(double x, int digits) {
  if (!std::isfinite(x)) return nullptr;
  return std::stod(fmt::format("{:.{}g}", x, digits));
}

Json curves_of(const Lines& lines) {
  if (lines.empty()) return nullptr;
  const auto n = static_cast<int64_t>(lines.size()), points = std::min(n, kMostPoints);
  Json curves;
  for (size_t c = 0; c < std::size(kCurves); ++c) {
    Json& values = curves[kCurves[c]] = Json::array();
    for (int64_t p = 0; p < points; ++p) {
      const int64_t begin = n * p / points, end = n * (p + 1) / points;
      double sum = 0;
      for (int64_t i = begin; i < end; ++i) sum += lines[static_cast<size_t>(i)][c];
      values.push_back(rounded(sum / double(end - begin), 6));
    }
  }
  return curves;
}

// eval.json beside the SAE's file.
Json evaluation_of(const SaeFile& file) {
  const fs::path path = file.path;
  std::error_code ignored;
  const std::string eval = ((fs::is_directory(path, ignored) ? path : path.parent_path()) / "eval.json").string();
  if (!is_file(eval)) return nullptr;
  const Json j = Json::parse(read_json(eval).dump());
  if (!j.is_object()) throw Error(fmt::format("{}: is not a JSON object", eval));
  return j;
}

std::string name_of(const SaeFile& file, const SaeLocation& at) {
  if (!file.name.empty()) return file.name;
  const std::string place = at.site.empty() ? "" : fmt::format("{}.", at.site);
  return fmt::format("{}{}/{}", place, at.layer < 0 ? "?" : std::to_string(at.layer), format_width(file.latents));
}

std::vector<SaeFile> list_saes_if_any(const std::string& path) {
  try {
    return list_saes(path);
  } catch (const Error&) {
    return {};
  }
}

RunResults read_run(const std::string& path) {
  RunResults run{.path = path, .name = {}, .is_run = true, .config = nullptr, .notes = {}, .saes = {}};
  run.finished = read_run_file(path).finished;
  if (is_file(path + "/config.json")) run.config = Json::parse(read_json(path + "/config.json").dump());
  const auto log = is_file(path + "/train.jsonl") ? read_log(path + "/train.jsonl") : std::map<std::string, Lines>{};
  std::map<std::string, SaeFile> files;
  for (const SaeFile& file : run.finished ? list_saes(path) : list_saes_if_any(path)) files.insert({file.name, file});
  if (run.config.is_object() && run.config.contains("saes"))
    for (const Json& sae : run.config["saes"]) {
      SaeResult result{.name = sae.value("name", ""), .file = {}, .training = sae, .curves = nullptr, .evaluation = {}};
      if (const auto lines = log.find(result.name); lines != log.end()) result.curves = curves_of(lines->second);
      if (const auto file = files.find(result.name); file != files.end()) {
        result.file.push_back(file->second);
        result.evaluation = evaluation_of(file->second);
      }
      run.saes.push_back(std::move(result));
    }
  if (!run.finished)
    run.notes.push_back(files.empty() ? "This run has not finished: it has no SAE yet, so no evaluation and no latents."
                                      : "This run has not finished: its SAEs are as they were when it was stopped.");
  if (log.empty()) run.notes.push_back("Its train.jsonl holds no line yet: there are no training curves.");
  return run;
}

}  // namespace

RunResults read_run_results(const std::string& path, const std::string& layer, const std::string& site) {
  std::error_code ignored;
  RunResults results;
  if (!fs::exists(path, ignored)) throw Error(fmt::format("{}: no such file or folder", path));
  if (is_file(path + "/run.json")) {
    results = read_run(path);
  } else {
    results = {.path = path, .name = {}, .config = nullptr, .notes = {}, .saes = {}};
    std::vector<SaeFile> files;
    try {
      files = list_saes(path);
    } catch (const Error& e) {
      throw Error(fmt::format("{}; nor is it the folder of a training run: there is no run.json", e.what()));
    }
    for (const SaeFile& file : files)
      results.saes.push_back(
          {name_of(file, located(file, layer, site)), {file}, nullptr, nullptr, evaluation_of(file)});
  }
  fs::path name = fs::absolute(path, ignored).lexically_normal();
  if (!name.has_filename()) name = name.parent_path();  // "out/demo/"
  results.name = name.filename().string();
  return results;
}

}  // namespace gsae
