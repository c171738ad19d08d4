#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

#include "tools/dashboard_pass.h"
#include "tools/run_defaults.h"

namespace gsae {

namespace {

struct FeaturesOptions {
  DashboardPassOptions pass;
  std::string sae, latents = "top", count = "5", examples = "8";
};

// How text is set off: on a terminal alone.
struct Style {
  bool terminal = false;
  int columns = 100;

  std::string bold(const std::string& text) const { return terminal ? "\x1b[1m" + text + "\x1b[0m" : text; }
  std::string dim(const std::string& text) const { return terminal ? "\x1b[2m" + text + "\x1b[0m" : text; }
  // the peak of an example
  std::string peak(const std::string& text) const {
    return terminal ? "\x1b[1;30;43m" + text + "\x1b[0m" : ">>" + text + "<<";
  }
  // other tokens where the latent is active
  std::string active(const std::string& text) const { return terminal ? "\x1b[33m" + text + "\x1b[0m" : text; }
};

Style style_of_output() {
  Style s{.terminal = isatty(STDOUT_FILENO) == 1};
  winsize w{};
  if (s.terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0) s.columns = w.ws_col;
  s.columns = std::clamp(s.columns, 60, 160);
  return s;
}

size_t columns_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

// On one line: line ends and tabs as marks.
std::string on_a_line(const std::string& text) {
  std::string line;
  for (const char c : text) line += c == '\n' ? "⏎" : c == '\t' ? "⇥" : std::string(1, c);
  return line;
}

// As many tokens around the peak as fit, three quarters of them before it.
std::string example_line(const ContextExample& e, const TokenTexts& texts, const Style& style, size_t columns) {
  std::vector<std::string> shown;
  for (const int32_t token : e.tokens) shown.push_back(on_a_line(texts.text(token)));
  const auto peak = static_cast<size_t>(e.position - e.begin);
  size_t begin = peak, end = peak + 1, used = columns_of(shown[peak]), before = 0;
  while (true) {
    const bool left = begin > 0 && used + columns_of(shown[begin - 1]) <= columns &&
                      (before + columns_of(shown[begin - 1]) <= columns * 3 / 4 || end == shown.size());
    if (left) {
      used += columns_of(shown[--begin]), before += columns_of(shown[begin]);
    } else if (end < shown.size() && used + columns_of(shown[end]) <= columns) {
      used += columns_of(shown[end++]);
    } else {
      break;
    }
  }
  std::string line;
  for (size_t t = begin; t < end; ++t)
    line += t == peak ? style.peak(shown[t]) : e.values[t] > 0 ? style.active(shown[t]) : shown[t];
  return line;
}

// 32 columns of the activations, the height in eighths of a character.
std::string histogram_lines(const LatentSummary& s) {
  constexpr const char* kEighths[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr int kRows = 4, kColumns = Examples::kBins / 2;
  std::array<double, kColumns> heights{};
  double highest = 0;
  for (int c = 0; c < kColumns; ++c) {
    heights[size_t(c)] = std::log1p(double(s.histogram[size_t(2 * c)] + s.histogram[size_t(2 * c + 1)]));
    highest = std::max(highest, heights[size_t(c)]);
  }
  std::string lines;
  for (int row = kRows - 1; row >= 0; --row) {
    std::string line = "    ";
    for (const double h : heights) {
      const double eighths = highest > 0 ? h / highest * 8 * kRows - 8 * row : 0;
      line += kEighths[std::clamp(int(std::ceil(eighths)), 0, 8)];
    }
    lines += line + "\n";
  }
  return lines + fmt::format("    0{:>{}}\n", fmt::format("{:.4g}", s.scale), kColumns - 1);
}

std::string token_list(const std::vector<TokenEffect>& effects, const TokenTexts& texts) {
  std::string line;
  for (const TokenEffect& e : effects) line += fmt::format(" '{}' {:+.2f} ", on_a_line(texts.text(e.token)), e.logit);
  return line;
}

void print_dashboard(const LatentDashboard& d, const SaeDashboards& sae, const TokenTexts& texts, const Style& style) {
  const LatentSummary& s = d.summary;
  const std::string title = style.bold(fmt::format("latent {}", d.latent));
  if (s.count == 0) {
    fmt::print("{}: dead: active on none of {} tokens\n", title, sae.tokens);
  } else {
    fmt::print("{}: active on {} of {} tokens, {:.4f} %; largest {:.4g}, mean where active {:.4g}\n", title, s.count,
               sae.tokens, 100 * double(s.count) / double(sae.tokens), s.max(), s.sum / double(s.count));
  }
  if (!d.logits.top.empty()) {
    fmt::print("\n  {}{}\n", style.dim("raises"), token_list(d.logits.top, texts));
    fmt::print("  {}{}\n", style.dim("lowers"), token_list(d.logits.bottom, texts));
  }
  std::string neighbours;
  for (const Neighbour& n : d.neighbours) neighbours += fmt::format(" {} ({:.2f})", n.latent, n.cosine);
  fmt::print("  {}{}\n", style.dim("nearest"), neighbours);
  if (s.count == 0) return;
  fmt::print("\n  {}\n{}", style.dim("activations (height: log of their number)"), histogram_lines(s));
  const auto columns = static_cast<size_t>(style.columns - 14);
  fmt::print("\n  {}\n", style.dim("largest"));
  for (const ContextExample& e : d.top) fmt::print("  {:>9.4g}  {}\n", e.value, example_line(e, texts, style, columns));
  for (const ActivationBand& band : d.bands) {
    fmt::print("\n  {}\n", style.dim(fmt::format("{:.4g} to {:.4g}: {:.1f} % of the activations", band.low, band.high,
                                                 100 * double(band.count) / double(s.count))));
    for (const ContextExample& e : band.examples)
      fmt::print("  {:>9.4g}  {}\n", e.value, example_line(e, texts, style, columns));
  }
}

void run_features(const FeaturesOptions& o, const CLI::App& command) {
  const int64_t count = parse_whole("--count", o.count, 1, 1000);
  DashboardOptions options{.choice = LatentChoice::parse(o.latents, count)};
  if (command.get_option("--count")->count() > 0) options.choice.require_count("--latent " + o.latents);
  if (options.choice.kind == LatentChoice::Kind::kNone)
    throw UsageError("--latent none: there would be nothing to print");
  options.top = parse_whole("--examples", o.examples, 1, Examples::kTop);
  const std::vector<SaeFile> saes = list_saes(o.sae);
  if (saes.size() != 1)
    throw UsageError(fmt::format("--sae {}: holds {} SAEs, the first of them {}; give the folder of one", o.sae,
                                 saes.size(), saes[0].path));
  DataOptions data = o.pass.data;
  if (const std::string run = run_of(saes[0].path); !run.empty()) take_defaults_of_run(data, command, run);
  else if (command.get_option("--model")->count() == 0 && !saes[0].location.model.empty())
    data.model = saes[0].location.model;
  Context ctx = o.pass.common.context();
  Progress progress(o.pass.common.quiet);
  const DashboardPass pass = run_dashboard_pass(ctx, o.pass, data, saes, options, progress);
  const SaeDashboards& sae = pass.saes[0];
  const auto dead = std::count(sae.fired.begin(), sae.fired.end(), int64_t{0});
  fmt::print("{}: {} latents at {} of layer {} of {}; {} dead on {} tokens\n", pass.targets[0].name, sae.fired.size(),
             name(pass.targets[0].site), pass.targets[0].layer, pass.model, dead, sae.tokens);
  const Style style = style_of_output();
  for (const LatentDashboard& d : sae.latents) {
    fmt::print("\n");
    print_dashboard(d, sae, *pass.texts, style);
  }
}

}  // namespace

void add_features(CLI::App& app) {
  auto o = std::make_shared<FeaturesOptions>();
  CLI::App* command = app.add_subcommand("features",
                                         "prints what latents of an SAE stand for: where they are active, "
                                         "and which tokens they raise");
  command->add_option("--sae", o->sae, "our folder, a Gemma Scope params.npz, or a SAELens folder")->required();
  command->add_option("--latent,--latents", o->latents, "numbers, such as 7 or 1,2,3; or top, or random")
      ->capture_default_str();
  command->add_option("--count", o->count, "of top or random latents")->capture_default_str();
  command->add_option("--examples", o->examples, "of the largest activations")->capture_default_str();
  o->pass.add(*command);
  command->callback([o, command] { run_features(*o, *command); });
}

}  // namespace gsae
