#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/hub.h"
#include "io/token_stream.h"
#include "kernels/range.h"
#include "tools/console.h"
#include "tools/evaluate.h"
#include "tools/interrupt.h"
#include "tools/lay_out.h"
#include "tools/machine.h"
#include "tools/passes.h"
#include "tools/remedies.h"
#include "tools/run_plan.h"
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
  const bool tf32 = run.options.precision == "tf32";
  const bool same = run.model_folder.empty() || (model_dtype == sae_dtype && !tf32);
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

void say(const Run& run, const std::string& text) {
  if (!run.options.common.quiet) print(stdout, text + "\n");
}

StepKind step_kind(const TrainOptions& o) {
  return o.sae_step == "dense" ? StepKind::kDense : o.sae_step == "sparse" ? StepKind::kSparse : StepKind::kAuto;
}

// Where the rows come from, and what else depends on it.
struct Source {
  RunChoices choices;  // but for the SAEs, which are those of a pass
  Planner plan;
  std::function<std::unique_ptr<RowSource>(const Pass& pass, const RunPlan& plan, Buffer& memory)> open;
  // bytes: of parameters that fit on the device at a time. Empty: there is nothing to evaluate on
  std::function<void(std::vector<TrainedSae>&, const RunPlan&, int64_t bytes)> evaluate;
};

// A training run: the suite in as many passes over the data as it takes, and what becomes of it.
class SuiteRun {
 public:
  SuiteRun(Context& ctx, Run& run, Source source) : ctx_(ctx), run_(run), source_(std::move(source)) {}

  void run() {
    catch_interrupts();
    make_passes();
    // of one place and width, whatever the sparsities
    if (!run_.options.init.empty())
      given_ = std::make_shared<SavedParameters>(run_.options.init, run_.saes[0].width, run_.saes[0].member.latents);
    for (size_t i = 0; i < passes_.size(); ++i) {
      if (passes_.size() > 1)
        say(run_, fmt::format("pass {} of {}: {} SAEs", i + 1, passes_.size(), passes_[i].saes.size()));
      say(run_, plans_[i].memory.table());
    }
    for (size_t i = 0; i < passes_.size(); ++i)
      if (const MemoryPlan& memory = plans_[i].memory; !memory.fits())
        memory.check(describe_ways(cheapest_ways(choices(passes_[i].saes), source_.plan), memory));
    RunFolder folder(run_.options.out.empty() ? default_folder(run_) : run_.options.out);
    int64_t results = 0;
    for (const Pass& pass : passes_) results += result_bytes(pass.saes);
    folder.require_space(results + (64 << 20));
    measure_peaks(ctx_, run_);
    for (size_t i = 0; i < passes_.size(); ++i) {
      if (i > 0 && interrupted())
        throw Interrupted(fmt::format("interrupted after pass {} of {}: {}", i, passes_.size(), where(folder)));
      train(passes_[i], plans_[i], folder);
    }
    if (interrupted())
      throw Interrupted(fmt::format("trained, not evaluated: {} in {}",
                                    results_.size() == 1 ? "the SAE is" : "the SAEs are", where(folder)));
    release_interrupts();  // the results are there: nothing is lost with the evaluation
    if (source_.evaluate) source_.evaluate(results_, plans_[0], evaluated_bytes());
    print(stdout, fmt::format("wrote {}\n", where(folder)));
    const bool gpu = ctx_.device() == Device::kCuda;
    int64_t planned = 0;
    for (const RunPlan& plan : plans_) planned = std::max(planned, plan.memory.total());
    say(run_, fmt::format("{} {} (planned {})", gpu ? "device memory used" : "peak resident memory",
                          format_bytes(gpu ? device_used_ : peak_resident_memory()), format_bytes(planned)));
  }

 private:
  std::string where(const RunFolder& folder) const {
    return results_.size() == 1 ? results_[0].path() : fmt::format("{} SAEs below {}", results_.size(), folder.path());
  }

  std::vector<SaeShape> shapes(const std::vector<size_t>& saes) const {
    std::vector<SaeShape> shapes;
    for (const size_t i : saes) {
      const SaeRecord& s = run_.saes[i];
      shapes.push_back({{s.member.site, s.member.layer}, s.width, s.member.latents, s.member.l0});
    }
    return shapes;
  }

  RunChoices choices(const std::vector<size_t>& saes) const {
    RunChoices c = source_.choices;
    c.saes = shapes(saes);
    return c;
  }

  // The suite as --passes wants it: in one part, in as few as fit, or in so many of about a size.
  std::vector<std::vector<size_t>> split() const {
    const auto part = [](const std::vector<int>& saes) { return std::vector<size_t>(saes.begin(), saes.end()); };
    std::vector<int> all(run_.saes.size());
    std::iota(all.begin(), all.end(), 0);
    const std::vector<SaeShape> suite = shapes(part(all));
    std::vector<std::vector<int>> parts{all};
    if (run_.plan.passes == 0) {
      parts = split_into_passes(
          suite, [&](const std::vector<int>& saes) { return source_.plan(choices(part(saes))).memory.fits(); });
      if (parts.empty()) parts = {all};  // not even one by one: the plan of all says what would help
    }
    for (size_t most = all.size() / std::max<int64_t>(run_.plan.passes, 1); run_.plan.passes > 1; ++most) {
      parts = split_into_passes(suite, [&](const std::vector<int>& saes) { return saes.size() <= most; });
      if (!parts.empty() && int64_t(parts.size()) <= run_.plan.passes) break;
    }
    std::vector<std::vector<size_t>> result;
    for (const std::vector<int>& saes : parts) result.push_back(part(saes));
    return result;
  }

  void make_passes() {
    const std::vector<std::vector<size_t>> parts = split();
    for (const std::vector<size_t>& saes : parts) {
      Pass pass;
      pass.saes = saes, pass.number = int64_t(passes_.size()) + 1, pass.of = int64_t(parts.size());
      for (const SaeShape& place : places_of(shapes(saes)))
        pass.places.push_back(place.place), pass.widths.push_back(place.width);
      passes_.push_back(std::move(pass));
      plans_.push_back(source_.plan(choices(saes)));
    }
  }

  int64_t result_bytes(const std::vector<size_t>& saes) const {
    int64_t bytes = 0;
    for (const size_t i : saes) bytes += measure<SaeParameters>(run_.saes[i].width, run_.saes[i].member.latents);
    return bytes;
  }
  // What the evaluation holds of the results at a time: those of a pass, for which there was room.
  int64_t evaluated_bytes() const {
    int64_t bytes = 0;
    for (const Pass& pass : passes_) bytes = std::max(bytes, result_bytes(pass.saes));
    return bytes;
  }

  std::vector<SaeSuite::Member> members(const Pass& pass) const {
    std::vector<SaeSuite::Member> members;
    for (const size_t i : pass.saes) {
      const SaeRecord& s = run_.saes[i];
      const Place at{s.member.site, s.member.layer};
      const auto place = std::find(pass.places.begin(), pass.places.end(), at) - pass.places.begin();
      members.push_back({s.recipe, place, s.member.latents});
    }
    return members;
  }

  // From the plan to the results.
  void train(Pass& pass, const RunPlan& plan, RunFolder& folder) {
    const TrainOptions& o = run_.options;
    Buffer source_memory, buffer_memory, suite_memory;
    const std::unique_ptr<RowSource> source = source_.open(pass, plan, source_memory);
    const auto buffer =
        allocate<ActivationBuffer>(ctx_.device(), buffer_memory, plan.suite.rows, pass.widths, o.sae_precision(),
                                   source->chunk(), run_.plan.batch, o.common.seed, !o.no_shuffle);
    const auto suite = allocate<SaeSuite>(ctx_.device(), suite_memory, ctx_.device(), pass.widths, members(pass),
                                          o.sae_precision(), step_kind(o));
    say(run_, describe(pass));
    Training(ctx_, run_, pass, *source, *buffer, *suite, folder, pass.number == pass.of ? std::move(given_) : given_)
        .run();
    const bool whole = pass.stopped.empty();
    for (size_t i = 0; i < pass.saes.size(); ++i) {
      TrainedSae result(
          {.run = folder.path(), .several_sites = count_sites(run_.plan.members) > 1, .alone = run_.saes.size() == 1},
          describe(pass, i));
      const SaeState& state = suite->trainer(int64_t(i)).state();
      if (whole) result.write(ctx_, state, pass.outcomes[i].l0);
      else result.write_interrupted(ctx_, state, pass.outcomes[i].l0, pass.steps_done);
      results_.push_back(std::move(result));
    }
    device_used_ = std::max(device_used_, plan.memory.available() - available_memory(ctx_));
    if (whole) return;
    const std::string what =
        fmt::format("{}; {} after step {} of {} {} in {}", pass.stopped,
                    pass.saes.size() == 1 ? "the SAE as it was" : "the SAEs as they were", pass.steps_done,
                    run_.plan.steps, pass.saes.size() == 1 ? "is" : "are",
                    pass.saes.size() == 1 ? results_.back().path() : folder.path() + "/interrupted");
    if (interrupted()) throw Interrupted(what);
    throw Error(what);
  }

  std::string describe(const Pass& pass) const {
    const Recipe& r = run_.saes[pass.saes[0]].recipe;
    const std::string steps = fmt::format("{} steps of {}, preset {}", run_.plan.steps, run_.plan.batch, r.preset);
    if (pass.saes.size() > 1)
      return fmt::format("training {} SAEs on {} place{}: {}", pass.saes.size(), pass.places.size(),
                         pass.places.size() == 1 ? "" : "s", steps);
    const SuiteMember& m = run_.saes[pass.saes[0]].member;
    return fmt::format("training {} latents on {}.{}: {}, {}", m.latents, name(m.site), m.layer, steps,
                       r.controller ? fmt::format("L0 {:g}", r.target_l0) : fmt::format("lambda {:g}", r.lambda));
  }

  SaeDescription describe(const Pass& pass, size_t i) const {
    const SaeRecord& sae = run_.saes[pass.saes[i]];
    SaeDescription s;
    s.name = sae.member.name();
    s.location = {run_.model_folder.empty() ? "" : run_.options.data.model, name(sae.member.site), sae.member.layer};
    s.preset = sae.recipe.preset;
    s.l0 = sae.recipe.target_l0;
    s.lambda = pass.outcomes[i].lambda;
    s.tokens = pass.steps_done * run_.plan.batch;
    s.seed = run_.options.common.seed;
    s.input_scale = sae.input_scale;
    return s;
  }

  Context& ctx_;
  Run& run_;
  Source source_;
  std::vector<Pass> passes_;
  std::vector<RunPlan> plans_;
  std::shared_ptr<SavedParameters> given_;  // until the last pass has copied them
  std::vector<TrainedSae> results_;
  int64_t device_used_ = 0;
};

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
  for (SuiteMember& m : run.plan.members) {
    m.site = probe->place().site, m.layer = probe->place().layer;
    run.saes.push_back({m, probe->width(), 0, member_recipe(o, run.plan, m, probe->width())});
  }
  MemoryPlan machine(ctx);
  machine.add_host("process", process_bytes());
  machine.add_host("saved activations", probe->rows() * probe->width() * static_cast<int64_t>(sizeof(float)), "mapped");
  SuiteRun(ctx, run,
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
            .open = [&](const Pass&, const RunPlan&, Buffer&) { return open(); },
            .evaluate = {}})
      .run();
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
  TokenStreamOptions held_out = text;
  held_out.split = TokenStreamOptions::Split::kHeldOut;
  held_out.shuffle = true;
  held_out.repeat = false;
  planned.evaluates = can_evaluate(o, held_out);
  planned.machine.add_host("process", process_bytes());
  planned.machine.add_host("text", text_bytes(text), "what waits to be shuffled, at most");

  Source source;
  source.choices = {.buffer = run.plan.buffer,
                    .model_batch = run.plan.model_batch,
                    .context = T,
                    .batch = run.plan.batch,
                    .dtype = o.data.compute(),
                    .precision = o.sae_precision(),
                    .saes = {}};
  source.plan = model_planner(planned);
  source.open = [&](const Pass& pass, const RunPlan& plan, Buffer& memory) {
    auto rows = allocate<ModelSource>(ctx.device(), memory, model, T, plan.contexts, pass.places);
    rows->open(text);
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
        results[i].add_evaluation(e.saes[i].metrics.l0.value, j);
      }
      progress.clear();
      print(stdout, evaluation_table(e, targets));
      say_what_missed(run, results, e);
    };
  SuiteRun(ctx, run, std::move(source)).run();
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
