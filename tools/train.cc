#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/hub.h"
#include "io/token_stream.h"
#include "kernels/range.h"
#include "tools/console.h"
#include "tools/evaluate.h"
#include "tools/file_source.h"
#include "tools/interrupt.h"
#include "tools/lay_out.h"
#include "tools/model_source.h"
#include "tools/suite_run.h"

namespace gsae {

namespace {

constexpr double kL0Tolerance = 0.05;  // beyond it, a run says that it missed the sparsity asked for

// Where the run takes place; before anything is read.
Context context_of(const TrainOptions& o) {
  Context ctx = o.common.context();
  if (o.precision == "tf32" && ctx.device() == Device::kCpu)
    throw UsageError("--precision tf32: only GPUs have such products, and this run is on the CPU: bf16 or f32");
  ctx.graphs = !o.eager;
  return ctx;
}

void train_on_activations(const TrainOptions& o) {
  Run run;
  run.options = o;
  run.plan = plan_training(o);
  const SuiteMember& first = run.plan.members[0];
  if (count_places(run.plan.members) != 1)
    throw UsageError(fmt::format("--layer {} --site {}: must be one layer and one site: those that {} is of", o.layer,
                                 o.site, o.activations));
  Context ctx = context_of(o);
  const auto open = [&o, wanted = Place{first.site, first.layer}] {
    return std::make_unique<FileSource>(o.activations, wanted, o.place_typed, parse_count(o.batch));
  };
  const auto probe = open();
  run.inputs = {o.activations};
  for (SuiteMember& m : run.plan.members) {
    m.site = probe->place().site, m.layer = probe->place().layer;
    run.saes.push_back({m, probe->width(), 0, member_recipe(o, run.plan, m, probe->width())});
  }
  MemoryPlan machine(ctx);
  machine.add_host("process", process_bytes());
  machine.add_host("saved activations", probe->rows() * probe->width() * static_cast<int64_t>(sizeof(float)), "mapped");
  run_suite(
      ctx, run,
      {.choices = {.buffer = run.plan.buffer, .batch = run.plan.batch, .precision = o.sae_precision(), .saes = {}},
       .plan =
           [&](const RunChoices& c) {
             RunPlan plan;
             plan.memory = machine;
             plan.suite = plan_suite(ctx.device(), plan.memory,
                                     {.batch = c.batch,
                                      .precision = c.precision,
                                      .saes = c.saes,
                                      .chunk = probe->chunk(),
                                      .asked = c.buffer,
                                      .wanted = std::min(kLargestBuffer, run.plan.tokens / 8),
                                      .most = run.plan.tokens});
             return plan;
           },
       .open =
           [&](const Pass&, const RunPlan&, Buffer&, const SourcePosition* from) {
             auto rows = open();
             if (from) rows->go_on_from(*from);
             return rows;
           },
       .evaluate = {}});
}

// Whether the data hold anything to evaluate on: found out before the training, not after it.
bool can_evaluate(const TrainOptions& o, TokenStreamOptions held_out) {
  if (o.eval_contexts == 0) return false;
  const char* why = nullptr;
  if (o.data.eval_fraction == 0) why = "--eval-fraction 0 holds no text out";
  if (std::find(held_out.files.begin(), held_out.files.end(), "-") != held_out.files.end())
    why = "standard input can be read only once";
  if (why) {
    print(stderr, fmt::format("{}: nothing will be evaluated\n", why));
    return false;
  }
  held_out.shuffle = false;  // no pool has to fill for the first context
  if (TokenStream(held_out).next(1).sequences == 0)
    throw Error(
        fmt::format("the text held out for evaluation does not fill a context of {} tokens: give more --data, a "
                    "shorter --context, an --eval-fraction above {}, or --eval-contexts 0",
                    held_out.context, o.data.eval_fraction));
  return true;
}

void say_what_missed(const Run& run, const std::vector<TrainedSae>& results, const Evaluation& e) {
  constexpr size_t kMostNamed = 4;
  std::string missed;
  size_t count = 0;
  for (size_t i = 0; i < results.size(); ++i) {
    const Recipe& r = run.saes[i].recipe;
    const double l0 = e.saes[i].metrics.l0.value;
    if (!r.controller || std::fabs(l0 / r.target_l0 - 1) <= kL0Tolerance || ++count > kMostNamed) continue;
    missed += fmt::format("{}L0 is {:.4g}, not the {:g} asked for\n",
                          results.size() > 1 ? run.saes[i].member.name() + ": " : "", l0, r.target_l0);
  }
  if (missed.empty() || run.options.common.quiet) return;
  if (count > kMostNamed) missed += fmt::format("and {} more are off by over 5 %\n", count - kMostNamed);
  print(stderr, missed +
                    "the run was too short for it to settle, or the held-out text differs from the rest: more "
                    "--tokens, or a smaller --batch for more steps\n");
}

void add_model_files(Run& run) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(run.model_folder))
    if (const std::string kind = entry.path().extension().string();
        kind == ".safetensors" || kind == ".json" || kind == ".model")
      files.push_back(entry.path().string());
  std::sort(files.begin(), files.end());
  run.inputs.insert(run.inputs.end(), files.begin(), files.end());
}

void train_on_model(const TrainOptions& o) {
  Run run;
  run.options = o;
  run.plan = plan_training(o);  // what is typed is checked before files are opened
  run.model_folder = find_model(o.data.model);
  const GemmaConfig config = read_config(run.model_folder);
  parse_layers(o.layer, config);  // are they there?
  run.options.data.context = o.data.context_for(config);
  const int64_t T = run.options.data.context;

  Context ctx = context_of(o);
  ModelRun planned{
      .machine = MemoryPlan(ctx), .config = config, .tokens = run.plan.tokens};  // before the weights are there
  const Gemma2 model(ctx, run.model_folder, o.data.compute());
  planned.weights = &model.weights();
  for (const SuiteMember& m : run.plan.members) {
    const int64_t d = model.site_width(m.site);
    run.saes.push_back({m, d, 0, member_recipe(o, run.plan, m, d)});
  }

  TokenStreamOptions text = o.data.stream(run.model_folder, config, o.common);
  text.context = T;
  text.split = TokenStreamOptions::Split::kTrain;
  text.shuffle = !o.no_shuffle;
  text.repeat = true;
  run.data_files = text.files;
  for (const std::string& file : text.files) {
    if (file == "-") run.can_go_on = false;
    else run.inputs.push_back(file);
  }
  add_model_files(run);
  TokenStreamOptions held_out = text;
  held_out.split = TokenStreamOptions::Split::kHeldOut;
  held_out.shuffle = true;
  held_out.repeat = false;
  planned.evaluates = can_evaluate(o, held_out);
  planned.machine.add_host("process", process_bytes());
  planned.machine.add_host("text", text_bytes(text), "what waits to be shuffled, at most");

  RunSource source;
  source.choices = {.buffer = run.plan.buffer,
                    .model_batch = run.plan.model_batch,
                    .context = T,
                    .batch = run.plan.batch,
                    .dtype = o.data.compute(),
                    .precision = o.sae_precision(),
                    .origins = !o.saves_rows(),
                    .saes = {}};
  source.plan = model_planner(planned);
  source.open = [&](const Pass& pass, const RunPlan& plan, Buffer& memory, const SourcePosition* from) {
    auto rows = allocate<ModelSource>(ctx.device(), memory, model, T, plan.contexts, pass.places);
    rows->open(text, from);
    if (!o.saves_rows()) rows->keep_origins(plan.suite.rows);
    return rows;
  };
  if (planned.evaluates)
    source.evaluate = [&](std::vector<TrainedSae>& results, const RunPlan& plan, int64_t bytes) {
      TokenStream stream(held_out);
      const Range range("evaluation");
      std::vector<EvaluationTarget> targets;
      for (const TrainedSae& result : results) targets.push_back(result.target());
      Buffer activation_memory, memory;
      const auto activations = allocate<Gemma2::Activations>(ctx.device(), activation_memory, model, plan.contexts, T);
      const auto room = allocate<EvaluationMemory>(ctx.device(), memory, model, plan.contexts, T, targets);
      Progress progress(o.common.quiet);
      const Evaluation e =
          evaluate(ctx, model, *activations, *room, stream, targets,
                   {.contexts = o.eval_contexts, .loss_contexts = run.plan.loss_contexts, .bytes = bytes}, progress);
      for (size_t i = 0; i < results.size(); ++i) {
        nlohmann::ordered_json j = to_json(e);
        j.update(to_json(e, i));
        results[i].add_evaluation(e.saes[i].metrics.l0.value,
                                  densities(e.saes[i].metrics.fired, e.saes[i].metrics.tokens), j);
      }
      progress.clear();
      print(stdout, evaluation_table(e, targets));
      say_what_missed(run, results, e);
    };
  run_suite(ctx, run, std::move(source));
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "train JumpReLU SAEs on a model's activations");
  options->add(*command);
  command->callback([options, command] {
    options->complete(*command);
    ignore_write_signals(true);
    if (options->activations.empty()) train_on_model(*options);
    else train_on_activations(*options);
  });
}

}  // namespace gsae
