#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <memory>
#include <optional>

#include "io/output_file.h"
#include "tools/distinct_names.h"
#include "tools/locate_sae.h"
#include "tools/neuronpedia.h"
#include "tools/output_option.h"
#include "tools/report_page.h"
#include "tools/run_defaults.h"

namespace gsae {

namespace {

// Of a page: beyond it a browser still opens it, but nobody looks at so many.
constexpr int64_t kLatentsOfAPage = 300, kLatentsOfAnSae = 100;

struct ReportOptions {
  DashboardPassOptions pass;
  std::vector<std::string> runs;
  std::string out, format = "html", latents = "top", count;
  bool force = false;
};

std::vector<SaeFile> files_of(const RunResults& results) {
  std::vector<SaeFile> files;
  for (const SaeResult& sae : results.saes) files.insert(files.end(), sae.file.begin(), sae.file.end());
  return files;
}

// No two runs of one name, and no two SAEs of a run: a page, its links and folders go by them.
void tell_apart(std::vector<ReportPart>& parts) {
  std::vector<std::string> runs, paths;
  for (const ReportPart& part : parts) runs.push_back(part.results.name), paths.push_back(part.results.path);
  runs = distinct_names(runs, paths);
  for (size_t r = 0; r < parts.size(); ++r) {
    RunResults& results = parts[r].results;
    results.name = runs[r];
    std::vector<std::string> saes, files;
    for (const SaeResult& sae : results.saes)
      saes.push_back(sae.name), files.push_back(sae.file.empty() ? "" : sae.file[0].path);
    saes = distinct_names(saes, files);
    for (size_t i = 0; i < saes.size(); ++i) results.saes[i].name = saes[i];
  }
}

// What the SAEs of one run are looked at with: its own model and data where the command line names no others. None:
// nobody looks.
std::optional<DataOptions> data_of(const ReportOptions& o, const CLI::App& command, RunResults& results,
                                   const LatentChoice& choice) {
  const std::vector<SaeFile> saes = files_of(results);
  if (saes.empty() || choice.kind == LatentChoice::Kind::kNone) return {};
  for (const SaeFile& sae : saes) require_latents(choice, sae.latents, sae.path);
  DataOptions data = o.pass.data;
  const std::string run = run_of(results.path);
  if (!run.empty() && !take_defaults_of_run(data, command, run)) {
    results.notes.push_back("It was trained on saved activations: --model would show what its latents stand for.");
    return {};
  }
  for (const SaeFile& sae : saes) located(sae, o.pass.layer, o.pass.site);
  if (run.empty() && command.get_option("--model")->count() == 0 && !saes[0].location.model.empty())
    data.model = saes[0].location.model;
  return data;
}

bool reads_standard_input(const std::optional<DataOptions>& data) {
  return data && std::find(data->data.begin(), data->data.end(), "-") != data->data.end();
}

void write_page(const std::string& out, const std::vector<ReportPart>& parts) {
  const std::string page = report_page(parts);
  write_file(out, page);
  fmt::print("wrote {} ({:.1f} MB)\n", out, double(page.size()) / 1e6);
}

void require_latents_to_write(const ReportPart& part, const std::optional<DataOptions>& data) {
  if (!data)
    throw Error(
        fmt::format("{}: has no latents to write: it holds no SAE yet, or was trained on saved activations "
                    "and no --model is given",
                    part.results.path));
  neuronpedia_model(data->model);
}

// Each SAE's into a folder of its own, if there are several.
void write_batches(const std::string& out, const std::vector<ReportPart>& parts) {
  std::vector<std::string> sets;
  for (const ReportPart& part : parts)
    for (const SaeResult& sae : part.results.saes)
      if (!sae.file.empty())
        sets.push_back(neuronpedia_set(parts.size() == 1 ? sae.name : part.results.name + "/" + sae.name));
  sets = distinct_names(sets, std::vector<std::string>(sets.size()));  // "a/b" and "a-b" are one folder's name
  int64_t files = 0;
  auto set = sets.begin();
  for (const ReportPart& part : parts)
    for (size_t i = 0; i < part.pass.at(0).saes.size(); ++i, ++set)
      files += write_neuronpedia(part.pass[0], i, sets.size() == 1 ? out : out + "/" + *set, *set);
  fmt::print("wrote {} batch{} of {} SAE{} into {}\n", files, files == 1 ? "" : "es", sets.size(),
             sets.size() == 1 ? "" : "s", out);
}

void run_report(const ReportOptions& o, const CLI::App& command) {
  const bool html = o.format == "html";
  if (!html && o.out.empty()) throw UsageError("--format neuronpedia: give --out DIR, a new folder for the batches");
  const std::string out = o.out.empty() ? "report.html" : o.out;
  if (html) require_new_file("--out", out, o.force);
  else require_empty_folder("--out", out);

  std::vector<ReportPart> parts;
  size_t saes = 0;
  for (const std::string& path : o.runs) {
    parts.push_back({read_run_results(path, o.pass.layer, o.pass.site), {}});
    saes += files_of(parts.back().results).size();
  }
  tell_apart(parts);
  const int64_t share = saes > 0 ? std::max<int64_t>(5, kLatentsOfAPage / static_cast<int64_t>(saes)) : 1;
  const int64_t count =
      o.count.empty() ? std::min(kLatentsOfAnSae, share) : parse_whole("--count", o.count, 1, 1000000);
  DashboardOptions options{.choice = LatentChoice::parse(o.latents, count)};
  if (!o.count.empty()) options.choice.require_count("--latents " + o.latents);
  if (!html) {  // as SAEDashboard has them
    if (options.choice.kind == LatentChoice::Kind::kNone)
      throw UsageError("--format neuronpedia --latents none: there would be nothing to write");
    options.top = Examples::kTop, options.per_band = Examples::kPerBand;
    options.before = options.band_before = 64, options.after = options.band_after = 63;
  }
  std::vector<std::optional<DataOptions>> data;
  for (ReportPart& part : parts) {
    data.push_back(data_of(o, command, part.results, options.choice));
    if (!html) require_latents_to_write(part, data.back());
  }
  if (std::count_if(data.begin(), data.end(), reads_standard_input) > 1)
    throw UsageError(
        "--data -: standard input can be read once, but each folder has a pass of its own; give --data FILE, or "
        "a report of one folder");
  Context ctx = o.pass.common.context();
  Progress progress(o.pass.common.quiet);
  for (size_t i = 0; i < parts.size(); ++i)
    if (data[i])
      parts[i].pass.push_back(run_dashboard_pass(ctx, o.pass, *data[i], files_of(parts[i].results), options, progress));
  if (html) write_page(out, parts);
  else write_batches(out, parts);
}

}  // namespace

void add_report(CLI::App& app) {
  auto o = std::make_shared<ReportOptions>();
  CLI::App* command = app.add_subcommand("report",
                                         "writes an HTML page about training runs and SAEs: curves, "
                                         "evaluation, and what their latents stand for");
  command->add_option("run", o->runs, "folders of training runs, or of SAEs: ours, Gemma Scope's, SAELens'")
      ->required();
  command->add_option("--out", o->out, "the page (report.html); with --format neuronpedia a new folder");
  command->add_option("--format", o->format, "html, or neuronpedia: the JSON batches that Neuronpedia imports")
      ->check(CLI::IsMember({"html", "neuronpedia"}))
      ->capture_default_str();
  command->add_option("--latents", o->latents, "top, random, none, or numbers such as 1,2,3; of each SAE")
      ->capture_default_str();
  command->add_option("--count", o->count, "of top or random latents (100, fewer if there are many SAEs)");
  command->add_flag("--force", o->force, "replace the page if it exists");
  o->pass.add(*command);
  command->callback([o, command] { run_report(*o, *command); });
}

}  // namespace gsae
