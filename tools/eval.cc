#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <memory>

#include "io/hub.h"
#include "io/output_file.h"
#include "sae/sae_file.h"
#include "tools/data_options.h"
#include "tools/evaluate.h"
#include "tools/evaluation_summary.h"
#include "tools/locate_sae.h"
#include "tools/memory_plan.h"
#include "tools/output_option.h"

namespace gsae {

namespace {

struct EvalOptions {
  CommonOptions common;
  DataOptions data;
  std::vector<std::string> saes;
  std::string site, layer, split = "heldout", contexts = "2048", loss_contexts, json;
  bool no_losses = false;
  bool force = false;
};

// Rows of one forward pass: enough to keep the products busy, few enough to stay in the cache.
constexpr int64_t kRowsOfAPass = 2048;

void write_json(const EvalOptions& o, const std::vector<std::string>& files, const Evaluation& e,
                const std::vector<SaeFile>& saes, const std::vector<EvaluationTarget>& targets) {
  nlohmann::ordered_json j{{"version", GSAE_VERSION}, {"model", o.data.model}, {"dtype", o.data.dtype},
                           {"data", files},           {"split", o.split},      {"eval_fraction", o.data.eval_fraction},
                           {"seed", o.common.seed}};
  j.update(to_json(e));
  j["saes"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < targets.size(); ++i) {
    nlohmann::ordered_json s{{"path", saes[i].path}, {"site", name(targets[i].site)}, {"layer", targets[i].layer}};
    s.update(to_json(e, i));
    j["saes"].push_back(std::move(s));
  }
  if (!targets.empty()) j.update(summaries_to_json(e, targets));
  // a path need not be UTF-8
  write_file(o.json, j.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void run_eval(const EvalOptions& o) {
  Context ctx = o.common.context();
  const int64_t contexts = parse_count(o.contexts);
  if (o.saes.empty() && o.no_losses) throw UsageError("--no-losses without --sae leaves nothing to measure");
  if (contexts < 1) throw UsageError(fmt::format("--contexts {}: must be at least 1", o.contexts));
  int64_t loss_contexts = o.no_losses ? 0 : contexts;
  if (!o.loss_contexts.empty()) loss_contexts = parse_whole("--loss-contexts", o.loss_contexts, 1, contexts);
  if (!o.json.empty()) require_new_file("--json", o.json, o.force);
  Progress progress(o.common.quiet);
  const std::string dir = find_model(o.data.model);
  const Gemma2 model(ctx, dir, o.data.compute());

  std::vector<SaeFile> saes;
  for (const std::string& path : o.saes)
    for (const SaeFile& sae : list_saes(path)) saes.push_back(sae);
  std::vector<EvaluationTarget> targets;
  for (const SaeFile& sae : saes) targets.push_back(locate_sae(sae, o.layer, o.site, model, o.data.model));

  for (const SaeFile& sae : saes)
    if (may_be_of_another(sae, o.data.model))
      progress.note(
          fmt::format("{}: was trained on {}; it is evaluated on {}", sae.path, sae.location.model, o.data.model));

  TokenStreamOptions s = o.data.stream(dir, model.config(), o.common);
  s.split = o.split == "all" ? TokenStreamOptions::Split::kAll : TokenStreamOptions::Split::kHeldOut;
  s.shuffle = true;  // corpora are often sorted by source: the first contexts would stand for one of them
  TokenStream stream(s);

  const int64_t batch = std::clamp<int64_t>(kRowsOfAPass / s.context, 1, contexts);
  const auto lay_out = [&](Arena& arena) {
    return std::pair(Gemma2::Activations(arena, model, batch, s.context),
                     EvaluationMemory(arena, model, batch, s.context, targets));
  };
  Arena plan;
  lay_out(plan);
  const Buffer memory(ctx.device(), plan.used());
  Arena arena(memory);
  auto [activations, evaluation_memory] = lay_out(arena);

  const EvaluationOptions options{.contexts = contexts,
                                  .loss_contexts = loss_contexts,
                                  // what is read while others are there takes room too
                                  .bytes = static_cast<int64_t>(0.75 * double(available_memory(ctx)))};
  const Evaluation e = evaluate(ctx, model, activations, evaluation_memory, stream, targets, options, progress);
  if (e.contexts < contexts)
    progress.note(
        fmt::format("the data hold {} contexts of the {} asked for; all of them were used", e.contexts, contexts));
  if (const auto done = stream.statistics(); done.skipped > 0)
    progress.note(fmt::format("skipped {} malformed documents, the first {}", done.skipped, done.first_skipped));
  fmt::print("{}", evaluation_table(e, targets));
  if (!targets.empty()) fmt::print("{}", evaluation_summaries(e, targets));
  if (!o.json.empty()) write_json(o, s.files, e, saes, targets);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto o = std::make_shared<EvalOptions>();
  CLI::App* command = app.add_subcommand("eval", "measures SAEs on held-out text; without --sae, the model itself");
  command->add_option("--sae", o->saes, "our folder, or an SAE in any format that import reads; several in one run");
  o->data.dtype = "f32";  // what is reported should not depend on the rounding of the model
  o->data.add(*command);
  command->add_option("--layer", o->layer, "where the SAE reads, if its file does not say");
  command->add_option("--site", o->site, "pre, att, attn_out, mlp_in, mlp or res, if its file does not say");
  command->add_option("--contexts", o->contexts, "how many to evaluate on")->capture_default_str();
  command->add_option("--split", o->split, "heldout: what training with the same --eval-fraction leaves out; or all")
      ->check(CLI::IsMember({"heldout", "all"}))
      ->capture_default_str();
  CLI::Option* no_losses =
      command->add_flag("--no-losses", o->no_losses, "reconstruction only: one forward pass, however many SAEs");
  command->add_option("--loss-contexts", o->loss_contexts, "of those, how many the LM losses are measured on (all)")
      ->excludes(no_losses);
  command->add_option("--json", o->json, "write the results to this file");
  command->add_flag("--force", o->force, "replace the --json file if it exists");
  o->common.add(*command);
  command->callback([o] { run_eval(*o); });
}

}  // namespace gsae
