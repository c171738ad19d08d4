#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/hub.h"
#include "io/token_stream.h"
#include "kernels/range.h"
#include "tools/console.h"
#include "tools/evaluate.h"
#include "tools/interrupt.h"
#include "tools/lay_out.h"
#include "tools/machine.h"
#include "tools/memory_plan.h"
#include "tools/run_sizes.h"
#include "tools/suite.h"
#include "tools/trained_sae.h"
#include "tools/training.h"

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

// What the products of this run could reach, before its memory is taken.
void measure_peaks(const Context& ctx, Run& run) {
  const DType model_dtype = run.options.data.compute(), sae_dtype = run.options.sae_precision();
  const bool tf32 = run.recipe.tf32, same = run.model_folder.empty() || (model_dtype == sae_dtype && !tf32);
  run.sae_peak = measure_product_peak(ctx, sae_dtype, tf32);
  run.model_peak = same ? run.sae_peak : measure_product_peak(ctx, model_dtype);
}

// Where the run goes if --out does not say.
std::string default_folder(const Run& run) {
  // a model's folder may be given as "." or with a slash at its end
  const auto last_name = [](const std::string& path) {
    const std::filesystem::path p = std::filesystem::absolute(path).lexically_normal();
    return (p.has_filename() ? p.filename() : p.parent_path().filename()).string();
  };
  const std::string from = run.model_folder.empty() ? "activations" : last_name(run.options.data.model);
  return fmt::format("runs/{}/{}", from, suite_name(run.plan.members));
}

// What becomes known with the source of the rows.
struct SourcePlan {
  int64_t width = 0, chunk = 0;  // of its rows; the most that come at once
  MemoryPlan memory;
  int64_t evaluation_bytes = 0;  // after the training
  std::function<std::unique_ptr<RowSource>(Buffer& memory)> make;
  std::function<void(TrainedSae&, RowSource&)> evaluate;  // empty: there is nothing to evaluate on
};

// All that a run holds while it trains.
struct Memory {
  Buffer buffer, trainer;
};

void say(const Run& run, const std::string& text) {
  if (!run.options.common.quiet) print(stdout, text + "\n");
}

SaeDescription describe(const Run& run) {
  SaeDescription s;
  s.name = run.sae().name();
  s.location = {run.model_folder.empty() ? "" : run.options.data.model, name(run.site), run.layer};
  s.preset = run.recipe.preset;
  s.l0 = run.recipe.target_l0;
  s.lambda = run.lambda;
  s.tokens = run.steps_done * run.recipe.batch;
  s.seed = run.options.common.seed;
  s.input_scale = run.C;
  return s;
}

// The rest of the plan, and the rows of the activation buffer: --buffer, or a million, or an eighth of a run too short
// to be worth the wait for them.
int64_t plan_memory(const Context& ctx, const Run& run, SourcePlan& source) {
  const SaePlan sae = plan_sae(ctx, source.memory,
                               {.recipe = run.recipe,
                                .width = source.width,
                                .latents = run.sae().latents,
                                .precision = run.options.sae_precision(),
                                .chunk = source.chunk,
                                .asked = run.plan.buffer,
                                .wanted = std::min(kLargestBuffer, run.plan.tokens / 8),
                                .most = run.plan.tokens});
  const int64_t more = source.evaluation_bytes - sae.bytes;
  if (more > 0) source.memory.add("evaluation", more, "beside what training gives back");
  return sae.rows;
}

// From the plan to the result, for rows from anywhere.
void train_on(Context& ctx, Run& run, SourcePlan from) {
  const Recipe& recipe = run.recipe;
  const DType precision = run.options.sae_precision();
  const int64_t d = from.width, F = run.sae().latents;
  catch_interrupts();
  const int64_t rows = plan_memory(ctx, run, from);
  std::unique_ptr<SavedParameters> given;
  if (!run.options.init.empty()) given = std::make_unique<SavedParameters>(run.options.init, d, F);
  RunFolder folder(run.options.out.empty() ? default_folder(run) : run.options.out);
  folder.require_space(measure<SaeParameters>(d, F) + (64 << 20));
  say(run, from.memory.table());
  from.memory.check();
  measure_peaks(ctx, run);

  Buffer source_memory;
  Memory memory;
  const std::unique_ptr<RowSource> source = from.make(source_memory);
  auto buffer = allocate<ActivationBuffer>(ctx.device(), memory.buffer, rows, d, precision, from.chunk, recipe.batch,
                                           recipe.seed, !run.options.no_shuffle);
  auto trainer = allocate<SaeTrainer>(ctx.device(), memory.trainer, recipe, tile_rows(ctx, F), d, F, precision);
  say(run, fmt::format(
               "training {} latents on {}.{}: {} steps of {}, {}, preset {}", F, name(run.site), run.layer,
               recipe.steps, recipe.batch,
               recipe.controller ? fmt::format("L0 {:g}", recipe.target_l0) : fmt::format("lambda {:g}", recipe.lambda),
               recipe.preset));
  Training(ctx, run, *source, *buffer, *trainer, folder, std::move(given)).run();
  TrainedSae result({.run = folder.path()}, describe(run));
  if (run.stopped.empty()) result.write(ctx, trainer->state().p, run.l0);
  else result.write_interrupted(ctx, trainer->state().p, run.l0, run.steps_done);
  const int64_t device_used = from.memory.available() - available_memory(ctx);

  buffer.reset(), trainer.reset(), memory = {};
  if (!run.stopped.empty()) {
    const std::string what = fmt::format("{}; the SAE as it was after step {} of {} is in {}", run.stopped,
                                         run.steps_done, recipe.steps, result.path());
    if (interrupted()) throw Interrupted(what);
    throw Error(what);
  }
  if (interrupted()) throw Interrupted(fmt::format("trained, not evaluated: the SAE is in {}", result.path()));
  release_interrupts();  // the result is there: nothing is lost with the evaluation
  if (from.evaluate) from.evaluate(result, *source);
  print(stdout, fmt::format("wrote {}\n", result.path()));
  const bool gpu = ctx.device() == Device::kCuda;
  say(run, fmt::format("{} {} (planned {})", gpu ? "device memory used" : "peak resident memory",
                       format_bytes(gpu ? device_used : peak_resident_memory()), format_bytes(from.memory.total())));
}

void require_one(const TrainPlan& plan, const TrainOptions& o) {
  if (plan.members.size() != 1)
    throw UsageError(
        fmt::format("--layer {} --site {}: one run trains one SAE; give one layer and one site", o.layer, o.site));
}

void train_on_activations(const TrainOptions& o) {
  Run run;
  run.options = o;
  run.C = o.input_scale;
  run.plan = plan_training(o);
  require_one(run.plan, o);
  Context ctx = context_of(o);
  const auto open = [&, wanted = Place{run.sae().site, run.sae().layer}] {
    return std::make_unique<FileSource>(o.activations, wanted, o.place_typed, parse_count(o.batch));
  };
  const auto probe = open();
  run.site = probe->place().site;
  run.layer = probe->place().layer;
  run.plan.members[0].site = run.site;
  run.plan.members[0].layer = run.layer;
  run.recipe = member_recipe(o, run.plan, run.sae(), probe->width());
  SourcePlan from;
  from.memory = MemoryPlan(ctx);
  from.width = probe->width();
  from.chunk = probe->chunk();
  from.memory.add_host("process", kProcessBytes);
  from.memory.add_host("saved activations", probe->rows() * probe->width() * static_cast<int64_t>(sizeof(float)),
                       "mapped");
  from.make = [&](Buffer&) { return open(); };
  train_on(ctx, run, std::move(from));
}

// Whether the data hold anything to evaluate on: found out before the training, not after it.
bool can_evaluate(const TrainOptions& o, TokenStreamOptions held_out) {
  if (o.eval_contexts == 0) return false;
  const char* why = nullptr;
  if (o.data.eval_fraction == 0) why = "--eval-fraction 0 holds no text out";
  if (std::find(held_out.files.begin(), held_out.files.end(), "-") != held_out.files.end())
    why = "standard input can be read only once";
  if (why) {
    print(stderr, fmt::format("{}: the SAE will not be evaluated\n", why));
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

void train_on_model(const TrainOptions& o) {
  Run run;
  run.options = o;
  run.C = o.input_scale;
  run.plan = plan_training(o);  // what is typed is checked before files are opened
  require_one(run.plan, o);
  run.model_folder = find_model(o.data.model);
  const GemmaConfig config = read_config(run.model_folder);
  parse_layers(o.layer, config);  // are they there?
  run.layer = run.sae().layer;
  run.site = run.sae().site;
  run.options.data.context = o.data.context_for(config);
  const int64_t T = run.options.data.context;

  Context ctx = context_of(o);
  SourcePlan from;
  from.memory = MemoryPlan(ctx);  // before the weights are there
  const Gemma2 model(ctx, run.model_folder, o.data.compute());
  const int64_t width = model.site_width(run.site);
  run.recipe = member_recipe(o, run.plan, run.sae(), width);
  const int64_t B = contexts_of_pass(ctx, run.plan.model_batch, T);

  TokenStreamOptions text = o.data.stream(run.model_folder, config, o.common);
  text.context = T;
  text.split = TokenStreamOptions::Split::kTrain;
  text.shuffle = !o.no_shuffle;
  text.repeat = true;
  run.data_files = text.files;
  TokenStreamOptions held_out = text;
  held_out.split = TokenStreamOptions::Split::kHeldOut;
  held_out.shuffle = true;
  held_out.repeat = false;

  from.width = width;
  from.chunk = B * T;
  from.memory.add_host("process", kProcessBytes);
  from.memory.add("model weights", static_cast<int64_t>(model.weights().mapped_bytes + model.weights().owned_bytes),
                  ctx.device() == Device::kCpu ? "mapped from the checkpoint" : "uploaded");
  from.memory.add_host("text", static_cast<int64_t>(text.shuffle_pool_bytes),
                       "the pool that shuffles documents, at most");
  from.memory.add("model activations", measure<ModelSource>(model, T, B, run.site, run.layer),
                  fmt::format("{} contexts of {}", B, T));
  from.make = [&](Buffer& memory) {
    auto source = allocate<ModelSource>(ctx.device(), memory, model, T, B, run.site, run.layer);
    source->open(text);
    return source;
  };
  if (can_evaluate(o, held_out)) {
    const std::vector<EvaluationTarget> planned{
        {.site = run.site, .layer = run.layer, .width = width, .latents = run.sae().latents}};
    from.evaluation_bytes = measure<EvaluationMemory>(model, B, T, planned);
    from.evaluate = [&](TrainedSae& result, RowSource& source) {
      static_cast<ModelSource&>(source).close();
      TokenStream stream(held_out);
      const Range range("evaluation");
      Buffer memory;
      const std::vector<EvaluationTarget> targets{result.target()};
      const auto room = allocate<EvaluationMemory>(ctx.device(), memory, model, B, T, targets);
      Progress progress(o.common.quiet);
      const Evaluation e = evaluate(ctx, model, static_cast<ModelSource&>(source).activations(), *room, stream, targets,
                                    {.contexts = o.eval_contexts, .loss_contexts = run.plan.loss_contexts}, progress);
      nlohmann::ordered_json j = to_json(e);
      j.update(to_json(e, 0));
      const double l0 = e.saes[0].metrics.l0.value, wanted = run.recipe.target_l0;
      result.add_evaluation(l0, j);
      progress.clear();
      print(stdout, evaluation_table(e, targets));
      if (run.recipe.controller && std::fabs(l0 / wanted - 1) > kL0Tolerance && !o.common.quiet)
        print(stderr, fmt::format("L0 is {:.4g}, not the {:g} asked for: the run was too short for it to settle; more "
                                  "--tokens, or a smaller --batch for more steps\n",
                                  l0, wanted));
    };
  }
  train_on(ctx, run, std::move(from));
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "train a JumpReLU SAE on a model's activations");
  options->add(*command);
  command->callback([options, command] {
    options->complete(*command);
    ignore_write_signals(true);
    if (options->activations.empty()) train_on_model(*options);
    else train_on_activations(*options);
  });
}

}  // namespace gsae
