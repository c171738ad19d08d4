#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/hub.h"
#include "io/output_file.h"
#include "io/token_stream.h"
#include "sae/sae_file.h"
#include "tools/evaluate.h"
#include "tools/interrupt.h"
#include "tools/memory_plan.h"
#include "tools/training.h"

namespace gsae {

namespace {

// Rows per tile of the SAE step: what is (tile, F) should stay in the caches.
constexpr int64_t kTile = 512;
// Tokens per forward pass: enough rows for the products, few enough that activations stay near the processor.
constexpr int64_t kForwardTokens = 1024;
constexpr int64_t kLargestBuffer = 1'000'000;
// What a process needs beside its plan: code, libraries, stacks, oneDNN's compiled products.
constexpr int64_t kProcessBytes = int64_t{96} << 20;

// Where the run goes if --out does not say.
std::string default_folder(const Run& run) {
  const std::string model = run.model_folder.empty()
                                ? "activations"
                                : run.options.data.model.substr(run.options.data.model.find_last_of('/') + 1);
  const Recipe& r = run.plan.recipe;
  const std::string sparsity =
      r.target_l0 > 0 ? fmt::format("l0_{:g}", r.target_l0) : fmt::format("lambda_{:g}", r.lambda);
  return fmt::format("runs/{}/{}_layer_{}_width_{}_{}", model, name(run.site), run.layer, format_width(run.plan.width),
                     sparsity);
}

// The rows that the shuffle buffer holds: --buffer, or a million, or an eighth of a run too short to be worth the wait
// for them, or what half of the memory that is left can hold.
int64_t buffer_rows(const Run& run, int64_t chunk, int64_t row_bytes, int64_t other_bytes) {
  // As long as less than a batch is held, there has to be room for what arrives at once.
  const int64_t least = chunk + run.plan.recipe.batch, most = std::numeric_limits<int32_t>::max();
  if (run.options.buffer.empty()) {
    const int64_t fits = (available_memory() - other_bytes) / 2 / row_bytes;
    return std::max(least, std::min({kLargestBuffer, run.plan.tokens / 8, fits}));
  }
  const int64_t rows = parse_count(run.options.buffer);
  if (rows < least || rows > most)
    throw UsageError(fmt::format("--buffer {}: must be from {} (a batch and what arrives at once) to {} activations",
                                 run.options.buffer, least, most));
  return rows;
}

// Everything that a run allocates, before its first step.
struct Memory {
  Buffer source, buffer, trainer;
};

// Lays the same thing out twice: without memory, to size it, and in `memory`.
template <class T, class... Args> std::unique_ptr<T> allocate(Device device, Buffer& memory, const Args&... args) {
  Arena plan;
  T(plan, args...);
  memory = Buffer(device, plan.used());
  Arena arena(memory);
  return std::make_unique<T>(arena, args...);
}

template <class T, class... Args> Arena measure(const Args&... args) {
  Arena plan;
  T(plan, args...);
  return plan;
}

// The folded SAE, where other tools find it: DIR/layer_20/width_16k/average_l0_71.
class Result {
 public:
  Result(Context& ctx, Run& run, const SaeParameters& trained, const std::string& folder) : run_(run), folder_(folder) {
    Arena plan;
    SaeParameters(plan, trained.width(), trained.latents());
    memory_ = Buffer(Device::kCpu, plan.used());
    Arena arena(memory_);
    folded_ = SaeParameters(arena, trained.width(), trained.latents());
    fold(ctx, folded_, trained, run.C);
  }

  const SaeParameters& folded() const { return folded_; }
  const std::string& path() const { return path_; }

  void write(double l0) {
    const Recipe& recipe = run_.plan.recipe;
    const bool whole = run_.steps_done == recipe.steps;
    path_ = whole ? named(l0) : fmt::format("{}/interrupted/step_{}", folder_, run_.steps_done);
    write_sae_folder(path_, folded_, description(l0));
  }

  // The name follows the L0 on held-out text, once that is known.
  void rename(double l0, const nlohmann::json& evaluation) {
    const std::string better = named(l0);
    write_sae_description(path_, folded_, description(l0));
    write_file(path_ + "/eval.json", evaluation.dump(1) + "\n");
    if (better == path_) return;
    std::filesystem::rename(path_, better);
    path_ = better;
  }

 private:
  std::string named(double l0) const {
    return fmt::format("{}/layer_{}/width_{}/average_l0_{:.0f}", folder_, run_.layer, format_width(run_.plan.width),
                       l0);
  }

  SaeDescription description(double l0) const {
    SaeDescription s;
    s.location = {run_.model_folder.empty() ? "" : run_.options.data.model, name(run_.site), run_.layer};
    s.preset = run_.plan.recipe.preset;
    s.l0 = run_.plan.recipe.target_l0;
    s.lambda = run_.plan.recipe.lambda;
    s.average_l0 = l0;
    s.tokens = run_.steps_done * run_.plan.recipe.batch;
    s.seed = run_.options.common.seed;
    s.input_scale = run_.C;
    return s;
  }

  Run& run_;
  std::string folder_, path_;
  Buffer memory_;
  SaeParameters folded_;
};

void say(const Run& run, const std::string& text) {
  if (!run.options.common.quiet) fmt::print("{}\n", text);
  std::fflush(stdout);
}

// From the plan to the result, for rows from anywhere.
template <class MakeSource>
void train_on(Context& ctx, Run& run, int64_t width, int64_t chunk, MemoryPlan memory_plan, MakeSource make_source,
              const std::function<void(Result&, RowSource&)>& evaluate_result) {
  const Recipe& recipe = run.plan.recipe;
  const DType precision = run.options.sae_precision();
  const std::string out = run.options.out.empty() ? default_folder(run) : run.options.out;
  RunFolder folder(out);
  const int64_t result_bytes = (2 * width + 2) * run.plan.width * 4;
  folder.require_space(result_bytes + (64 << 20));

  const Arena trainer_plan = measure<SaeTrainer>(recipe, kTile, width, run.plan.width, precision);
  int64_t state_bytes = 0;
  Arena state;
  SaeState(state, width, run.plan.width, precision);
  state_bytes = static_cast<int64_t>(state.used());
  memory_plan.add("SAE parameters and optimizer", state_bytes,
                  precision == DType::kBF16 ? "f32, and bf16 copies" : "f32");
  memory_plan.add("SAE gradients and workspace", static_cast<int64_t>(trainer_plan.used()) - state_bytes,
                  fmt::format("tiles of {} rows", std::min(kTile, recipe.batch)));
  memory_plan.add("result, folded", result_bytes, "at the end");
  const int64_t row_bytes = width * static_cast<int64_t>(size_of(precision)) + 8;
  const int64_t rows = buffer_rows(run, chunk, row_bytes, memory_plan.total());
  const bool shuffle = !run.options.no_shuffle;
  memory_plan.add("activation buffer", rows * row_bytes, fmt::format("{} rows of {} {}", rows, width, name(precision)));
  say(run, memory_plan.table());
  memory_plan.check();

  Memory memory;
  const std::unique_ptr<RowSource> source = make_source(memory.source);
  const auto buffer = allocate<ActivationBuffer>(ctx.device(), memory.buffer, rows, width, precision, chunk,
                                                 recipe.batch, recipe.seed, shuffle);
  const auto trainer =
      allocate<SaeTrainer>(ctx.device(), memory.trainer, recipe, kTile, width, run.plan.width, precision);
  say(run, fmt::format("training {} latents on {}.{}: {} steps of {}, L0 {:g}, preset {}", run.plan.width,
                       name(run.site), run.layer, recipe.steps, recipe.batch, recipe.target_l0, recipe.preset));
  Training(ctx, run, *source, *buffer, *trainer, folder).run();

  if (run.steps_done == 0) throw Interrupted();
  Result result(ctx, run, trainer->state().p, out);
  result.write(run.l0);
  if (run.steps_done < recipe.steps)
    throw Interrupted(
        fmt::format("interrupted after step {} of {}: the SAE as it was then is in {}; start again with "
                    "another --out",
                    run.steps_done, recipe.steps, result.path()));
  evaluate_result(result, *source);
  say(run, "wrote " + result.path());
  say(run, fmt::format("peak resident memory {} (planned {})", format_bytes(peak_resident_memory()),
                       format_bytes(memory_plan.total())));
}

void train_on_activations(const TrainOptions& o) {
  Context ctx = o.common.context();
  Run run;
  run.options = o;
  run.C = o.input_scale;
  const std::vector<Site> sites = parse_sites(o.site);
  run.site = sites[0];
  run.layer = parse_count(o.layer);
  const std::string tensor = fmt::format("{}.{}", name(run.site), run.layer);
  const int64_t chunk = parse_count(o.batch);
  FileSource probe(o.activations, tensor, chunk);
  run.plan = plan_training(o, probe.width());
  MemoryPlan plan;
  plan.add("process", kProcessBytes + static_cast<int64_t>(Context::kWorkspaceBytes));
  plan.add("saved activations", probe.rows() * probe.width() * 4, "mapped");
  train_on(
      ctx, run, probe.width(), probe.chunk(), plan,
      [&](Buffer&) { return std::make_unique<FileSource>(o.activations, tensor, chunk); }, [](Result&, RowSource&) {});
}

void train_on_model(const TrainOptions& o) {
  Run run;
  run.options = o;
  run.C = o.input_scale;
  run.model_folder = find_model(o.data.model);
  const GemmaConfig config = read_config(run.model_folder);
  const std::vector<int64_t> layers = parse_layers(o.layer, config);
  const std::vector<Site> sites = parse_sites(o.site);
  if (layers.size() != 1 || sites.size() != 1)
    throw UsageError(
        fmt::format("--layer {} --site {}: one run trains one SAE; give one layer and one site", o.layer, o.site));
  run.layer = layers[0];
  run.site = sites[0];
  run.options.data.context = o.data.context_for(config);
  const int64_t T = run.options.data.context, B = std::max<int64_t>(1, kForwardTokens / T);

  Context ctx = o.common.context();
  const Gemma2 model(ctx, run.model_folder, o.data.compute());
  const int64_t width = model.site_width(run.site);
  run.plan = plan_training(o, width);

  TokenStreamOptions text = o.data.stream(run.model_folder, config, o.common);
  text.context = T;
  text.split = TokenStreamOptions::Split::kTrain;
  text.shuffle = !o.no_shuffle;
  text.repeat = true;

  MemoryPlan plan;
  plan.add("process", kProcessBytes + static_cast<int64_t>(Context::kWorkspaceBytes));
  plan.add("model weights", static_cast<int64_t>(model.weights().mapped_bytes + model.weights().owned_bytes),
           "mapped from the checkpoint");
  plan.add("text", static_cast<int64_t>(text.shuffle_pool_bytes), "the pool that shuffles documents, at most");
  plan.add("model activations", measure<ModelSource>(model, o.data.compute(), T, B, run.site, run.layer),
           fmt::format("{} contexts of {}", B, T));

  train_on(
      ctx, run, width, B * T, plan,
      [&](Buffer& memory) {
        auto source = allocate<ModelSource>(ctx.device(), memory, model, o.data.compute(), T, B, run.site, run.layer);
        source->open(text);
        return source;
      },
      [&](Result& result, RowSource& source) {
        if (o.eval_contexts == 0) return;
        static_cast<ModelSource&>(source).close();
        TokenStreamOptions held_out = text;
        held_out.split = TokenStreamOptions::Split::kHeldOut;
        held_out.repeat = false;
        held_out.shuffle = true;
        TokenStream stream(held_out);
        const std::vector<EvaluationTarget> targets{{result.folded(), run.site, run.layer}};
        Buffer memory;
        const auto room = allocate<EvaluationMemory>(ctx.device(), memory, model, B, T, targets);
        Progress progress(o.common.quiet);
        const Evaluation e = evaluate(ctx, model, static_cast<ModelSource&>(source).activations(), *room, stream,
                                      targets, {.contexts = o.eval_contexts}, progress);
        nlohmann::ordered_json j = to_json(e);
        j.update(to_json(e, 0));
        result.rename(e.saes[0].metrics.l0.value, j);
        const std::vector<std::string> names{
            fmt::format("{}.{} {}", name(run.site), run.layer, format_width(run.plan.width))};
        progress.clear();
        fmt::print("{}", evaluation_table(e, names));
      });
}

}  // namespace

void add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "train a JumpReLU SAE on a model's activations");
  options->add(*command);
  command->callback([options] {
    if (options->activations.empty()) train_on_model(*options);
    else train_on_activations(*options);
  });
}

}  // namespace gsae
