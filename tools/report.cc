#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "io/output_file.h"
#include "tools/neuronpedia.h"
#include "tools/report_page.h"
#include "tools/run_defaults.h"

namespace gsae {

namespace fs = std::filesystem;

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

// Looks at the SAEs of one run, with its own model and data where the command line names no others.
void look(Context& ctx, const ReportOptions& o, const CLI::App& command, ReportPart& part,
          const DashboardOptions& options, Progress& progress) {
  const std::vector<SaeFile> saes = files_of(part.results);
  if (saes.empty() || options.choice.kind == LatentChoice::Kind::kNone) return;
  DataOptions data = o.pass.data;
  const std::string run = run_of(part.results.path);
  if (!run.empty() && !take_defaults_of_run(data, command, run)) {
    part.results.notes.push_back("It was trained on saved activations: --model would show what its latents stand for.");
    return;
  }
  if (run.empty() && command.get_option("--model")->count() == 0 && !saes[0].location.model.empty())
    data.model = saes[0].location.model;
  part.pass.push_back(run_dashboard_pass(ctx, o.pass, data, saes, options, progress));
}

void write_page(const std::string& out, const std::vector<ReportPart>& parts) {
  const std::string page = report_page(parts);
  write_file(out, page);
  fmt::print("wrote {} ({:.1f} MB)\n", out, double(page.size()) / 1e6);
}

void write_batches(const std::string& out, const std::vector<ReportPart>& parts) {
  for (const ReportPart& part : parts) {
    if (part.pass.empty())
      throw Error(
          fmt::format("{}: has no latents to write: it holds no SAE yet, or was trained on saved activations "
                      "and no --model is given",
                      part.results.path));
    const std::string dir = parts.size() == 1 ? out : out + "/" + part.results.name;
    const int64_t files = write_neuronpedia(part.pass[0], dir);
    fmt::print("wrote {} batch{} into {}\n", files, files == 1 ? "" : "es", dir);
  }
}

void run_report(const ReportOptions& o, const CLI::App& command) {
  const bool html = o.format == "html";
  if (!html && o.out.empty()) throw UsageError("--format neuronpedia: give --out DIR, a new folder for the batches");
  const std::string out = o.out.empty() ? "report.html" : o.out;
  if (!html) require_empty_folder("--out", out);
  else if (!o.force && fs::exists(out))
    throw Error(fmt::format("{} exists already; give another --out, or --force to replace it", out));

  std::vector<ReportPart> parts;
  size_t saes = 0;
  for (const std::string& path : o.runs) {
    parts.push_back({read_run_results(path), {}});
    saes += files_of(parts.back().results).size();
  }
  const int64_t share = saes > 0 ? std::max<int64_t>(5, kLatentsOfAPage / static_cast<int64_t>(saes)) : 1;
  const int64_t count =
      o.count.empty() ? std::min(kLatentsOfAnSae, share) : parse_whole("--count", o.count, 1, 1000000);
  DashboardOptions options{.choice = LatentChoice::parse(o.latents, count)};
  if (!html) {  // as SAEDashboard has them
    if (options.choice.kind == LatentChoice::Kind::kNone)
      throw UsageError("--format neuronpedia --latents none: there would be nothing to write");
    options.top = Examples::kTop, options.per_band = Examples::kPerBand;
    options.before = options.band_before = 64, options.after = options.band_after = 63;
  }
  Context ctx = o.pass.common.context();
  Progress progress(o.pass.common.quiet);
  for (ReportPart& part : parts) look(ctx, o, command, part, options, progress);
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
