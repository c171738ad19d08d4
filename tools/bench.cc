#include <fmt/format.h>
#include <omp.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "io/output_file.h"
#include "kernels/checkf.h"
#include "kernels/device_info.h"
#include "kernels/elementwise.h"
#include "kernels/philox.h"
#include "kernels/range.h"
#include "kernels/stopwatch.h"
#include "sae/activation_buffer.h"
#include "sae/sae_suite.h"
#include "tools/bench_options.h"
#include "tools/bench_report.h"
#include "tools/console.h"
#include "tools/lay_out.h"
#include "tools/machine.h"
#include "tools/model_source.h"
#include "tools/output_option.h"
#include "tools/progress.h"
#include "tools/run_sizes.h"

namespace gsae {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Contexts of random tokens, as a text's would come: BOS, then anything that is trained on.
TokenBatch random_tokens(const GemmaConfig& c, int64_t sequences, int64_t context, uint64_t seed, uint64_t pass) {
  const int32_t special = std::max({c.bos, c.eos, c.pad}) + 1;
  const Random random(seed, Random::kShuffleDocuments, pass);
  TokenBatch batch{sequences, context, std::vector<int32_t>(sequences * context, c.bos)};
  for (int64_t i = 0; i < sequences * context; ++i)
    if (i % context != 0) batch.tokens[i] = special + static_cast<int32_t>(random.below(c.vocab - special, i));
  return batch;
}

// That of `train`, but for a learning rate of zero: the step does the same work, and the L0 stays where the start from
// data puts it, which no other way would be sure to be the one asked for after a few seconds.
Recipe frozen_recipe(const BenchPlan& plan, int64_t width, uint64_t seed) {
  Recipe r = preset_recipe("default", int64_t{1} << 40, plan.batch, width);
  r.lr = 0;
  r.lambda = 1e-3;
  r.start_l0 = plan.l0;
  r.seed = seed;
  r.tf32 = plan.tf32;
  return r;
}

// One SAE on one site of a model of random weights, laid out and run as `train` does it.
class Bench {
 public:
  Bench(Context& ctx, const BenchPlan& plan, const CommonOptions& common);
  BenchResult run();

 private:
  SuiteSizes sizes(int64_t d) const;
  MemoryPlan plan_memory();
  void fill();
  void step();
  void take_metrics();
  void drain();
  void first_fill();
  void start();
  double warm_up(const char* what, const std::function<void()>& once);
  int64_t repetitions(double seconds, double share, int64_t steps) const;
  BenchResult::Interval time_forward(double pass_seconds);
  BenchResult::Interval time_sae(double step_seconds);
  BenchResult::Interval time_whole(double pass_seconds, double step_seconds);

  Context& ctx_;
  BenchPlan plan_;
  CommonOptions common_;
  Progress progress_;
  int64_t contexts_, pass_rows_;
  SuitePlan sae_plan_;
  MemoryPlan memory_plan_;

  std::unique_ptr<Gemma2> model_;
  Buffer source_memory_, buffer_memory_, suite_memory_;
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<ActivationBuffer> buffer_;
  std::unique_ptr<SaeSuite> suite_;
  uint64_t passes_ = 0;
  int64_t steps_ = 0;
  bool asked_ = false;  // for metrics, which have not come yet
  double l0_sum_ = 0;
  int64_t l0_rows_ = 0;
};

Bench::Bench(Context& ctx, const BenchPlan& plan, const CommonOptions& common)
    : ctx_(ctx),
      plan_(plan),
      common_(common),
      progress_(common.quiet),
      contexts_(contexts_of_pass(ctx.device(), plan.model_batch, plan.context)),
      pass_rows_(contexts_ * (plan.context - 1)),
      memory_plan_(plan_memory()) {
  if (!common_.quiet) print(stdout, memory_plan_.table() + "\n");
  memory_plan_.check("choose a smaller --shape, --layer, --width, --batch, --model-batch or --buffer");

  progress_.show("making random weights");
  model_ = std::make_unique<Gemma2>(ctx_, plan_.config, plan_.dtype, common_.seed);
  source_ = allocate<ModelSource>(ctx_.device(), source_memory_, *model_, plan_.context, contexts_,
                                  std::vector<Place>{{plan_.site, plan_.layer}});
  source_->open([this](int64_t sequences) {
    return random_tokens(plan_.config, sequences, plan_.context, common_.seed, passes_++);
  });
  const std::vector<int64_t> widths = source_->widths();
  const int64_t d = widths[0];
  const SuiteSizes s = sizes(d);
  const Recipe recipe = frozen_recipe(plan_, d, common_.seed);
  buffer_ = allocate<ActivationBuffer>(ctx_.device(), buffer_memory_, sae_plan_.rows, widths, s.precision, s.chunk,
                                       s.batch, recipe.seed, true);
  const std::vector<SaeSuite::Member> members{{recipe, 0, plan_.width}};
  suite_ = allocate<SaeSuite>(ctx_.device(), suite_memory_, ctx_.device(), widths, members, s.precision);
}

SuiteSizes Bench::sizes(int64_t d) const {
  return {.batch = plan_.batch,
          .precision = plan_.precision,
          .saes = {{{plan_.site, plan_.layer}, d, plan_.width, plan_.l0}},
          .chunk = contexts_ * plan_.context,
          .asked = plan_.buffer,
          .wanted = kLargestBuffer,
          .most = std::numeric_limits<int32_t>::max()};
}

// Before anything is allocated: nobody should wait for random weights to learn that they do not fit.
MemoryPlan Bench::plan_memory() {
  MemoryPlan plan(ctx_);
  const Gemma2 shape(ctx_.device(), plan_.config, plan_.dtype);
  plan.add_host("process", process_bytes());
  plan.add("model weights", static_cast<int64_t>(shape.weights().owned_bytes),
           fmt::format("random, {}, {} layers", name(plan_.dtype), plan_.config.layers));
  plan.add("model activations",
           measure<ModelSource>(shape, plan_.context, contexts_, std::vector<Place>{{plan_.site, plan_.layer}}),
           fmt::format("{} contexts of {}", contexts_, plan_.context));
  sae_plan_ = plan_suite(ctx_.device(), plan, sizes(shape.site_width(plan_.site)));
  return plan;
}

void Bench::fill() {
  const int64_t before = buffer_->held();
  source_->fill(ctx_, *buffer_);
  CHECKF(buffer_->held() == before + pass_rows_, "a pass brought {} rows, not {}", buffer_->held() - before,
         pass_rows_);
}

// On the rows that the buffer has chosen last.
void Bench::step() {
  suite_->step(ctx_, *buffer_, steps_++);
  constexpr int64_t kLogEvery = 10, kDeadWindow = 10'000'000;  // as train does
  SaeTrainer& trainer = suite_->trainer(0);
  if (trainer.metrics_ready()) take_metrics();
  if (steps_ % kLogEvery != 0) return;
  if (asked_) take_metrics();
  asked_ = trainer.request_metrics(ctx_, kDeadWindow);
}

void Bench::take_metrics() {
  const StepMetrics m = suite_->trainer(0).take_metrics();
  l0_sum_ += m.l0 * double(m.rows), l0_rows_ += m.rows;
  asked_ = false;
}

// Makes room for a pass.
void Bench::drain() {
  while (!buffer_->has_room()) buffer_->draw(ctx_, plan_.batch);
}

// As train begins: enough rows for a step, and their scale.
void Bench::first_fill() {
  while (buffer_->held() < plan_.batch) {
    fill();
    if (progress_.due()) progress_.show(fmt::format("warming up: {} of {} activations", buffer_->held(), plan_.batch));
  }
  suite_->calibrate(ctx_, *buffer_, 1 << 17);
}

// From data, once there is a good deal of it: the rows of one context of random tokens resemble each other, and a start
// from a few contexts finds too low a threshold for all others.
void Bench::start() {
  progress_.show("starting the SAE");
  buffer_->sample(ctx_, plan_.batch);
  suite_->start(ctx_, *buffer_);
}

// Until it runs as it will run from then on: on a GPU three times (op by op, recorded, replayed), on the CPU twice, or
// once if that takes long. Seconds of the last.
double Bench::warm_up(const char* what, const std::function<void()>& once) {
  const bool gpu = ctx_.device() == Device::kCuda;
  double seconds = 0;
  progress_.show(fmt::format("warming up: {}", what));
  for (int i = 0; i < (gpu ? 3 : 2) && (gpu || seconds < 1); ++i) {
    ctx_.synchronize();
    const Clock::time_point begin = Clock::now();
    once();
    ctx_.synchronize();
    seconds = seconds_since(begin);
  }
  return seconds;
}

// What fits into a share of the time that there is, or takes up as many steps as are asked for.
int64_t Bench::repetitions(double seconds, double share, int64_t steps) const {
  if (plan_.steps > 0) return std::max<int64_t>(1, steps);
  return std::max<int64_t>(1, std::llround(share * plan_.seconds / std::max(seconds, 1e-6)));
}

// Forward passes as train has them, tokens up and rows into the buffer included; what makes room for them is not timed.
BenchResult::Interval Bench::time_forward(double pass_seconds) {
  const Range range("forward alone");
  const int64_t wanted = (plan_.steps * plan_.batch + pass_rows_ - 1) / pass_rows_;
  BenchResult::Interval r{.passes = repetitions(pass_seconds, 0.25, wanted)};
  Stopwatch watch;
  for (int64_t i = 0; i < r.passes; ++i) {
    drain();
    watch.start(ctx_);
    fill();
    watch.stop(ctx_);
    if (progress_.due()) progress_.show(fmt::format("forward: pass {} of {}", i + 1, r.passes));
  }
  ctx_.synchronize();
  r.seconds = watch.seconds();
  return r;
}

// Steps as train has them, rows out of the buffer included; but the rows stay there, for want of new ones.
BenchResult::Interval Bench::time_sae(double step_seconds) {
  const Range range("SAE alone");
  BenchResult::Interval r{.steps = repetitions(step_seconds, 0.25, plan_.steps)};
  Stopwatch watch;
  for (int64_t i = 0; i < r.steps; ++i) {
    watch.start(ctx_);
    buffer_->sample(ctx_, plan_.batch);
    step();
    watch.stop(ctx_);
    if (progress_.due()) progress_.show(fmt::format("SAE: step {} of {}", i + 1, r.steps));
  }
  ctx_.synchronize();
  r.seconds = watch.seconds();
  return r;
}

// The loop of train, in wall-clock time: each step's rows are drawn once and as many arrive, to within half a pass.
BenchResult::Interval Bench::time_whole(double pass_seconds, double step_seconds) {
  const Range range("whole");
  const double share_of_pass = double(plan_.batch) / double(pass_rows_);  // that one step uses up
  const int64_t least = (pass_rows_ + plan_.batch - 1) / plan_.batch;
  BenchResult::Interval r{
      .steps = std::max(least, repetitions(step_seconds + share_of_pass * pass_seconds, 0.5, plan_.steps))};
  int64_t arrived = 0;
  drain();
  ctx_.synchronize();
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < r.steps; ++i) {
    while (buffer_->held() < plan_.batch ||
           ((i + 1) * plan_.batch >= arrived + pass_rows_ / 2 && buffer_->has_room())) {
      fill();
      arrived += pass_rows_, ++r.passes;
    }
    buffer_->draw(ctx_, plan_.batch);
    step();
    if (progress_.due()) progress_.show(fmt::format("whole: step {} of {}", i + 1, r.steps));
  }
  ctx_.synchronize();
  r.seconds = seconds_since(begin);
  return r;
}

BenchResult Bench::run() {
  BenchResult r;
  r.plan = plan_;
  first_fill();
  const double pass_seconds = warm_up("forward", [this] { drain(), fill(); });
  r.forward = time_forward(pass_seconds);
  start();
  const double step_seconds = warm_up("SAE", [this] {
    buffer_->sample(ctx_, plan_.batch);
    step();
  });
  r.sae = time_sae(step_seconds);
  r.whole = time_whole(r.forward.seconds / double(r.forward.passes), r.sae.seconds / double(r.sae.steps));
  if (asked_) take_metrics();
  if (suite_->trainer(0).request_metrics(ctx_, 1)) take_metrics();
  progress_.clear();
  r.used = ctx_.device() == Device::kCpu ? peak_resident_memory() : memory_plan_.available() - available_memory(ctx_);
  r.planned = memory_plan_.total();
  r.l0 = l0_sum_ / double(l0_rows_);
  if (!std::isfinite(r.l0)) throw Error("the activations of the random model are not finite: try --dtype f32");
  r.d = source_->widths()[0];
  r.contexts = contexts_;
  r.pass_rows = pass_rows_;
  r.flops_per_token = source_->flops_per_row();
  return r;
}

std::string describe_device(const Context& ctx) {
  if (ctx.device() == Device::kCpu)
    return fmt::format("cpu, {}, {} threads", describe_machine().cpu, omp_get_max_threads());
  return fmt::format("cuda:{}, {}", ctx.index(), cuda_device(ctx.index()).name);
}

// After the measurements, in the memory that they gave back: their peaks should not show in the memory used, and the
// device is as warm as they found it.
Roofs measure_roofs(const Context& ctx, const BenchPlan& plan) {
  Roofs r;
  r.model_peak = measure_product_peak(ctx, plan.dtype);
  const bool same = plan.precision == plan.dtype && !plan.tf32;
  r.sae_peak = same ? r.model_peak : measure_product_peak(ctx, plan.precision, plan.tf32);
  r.bandwidth = measure_copy_bandwidth(ctx);
  r.published = published_bf16_peak(ctx.device() == Device::kCpu ? "" : cuda_device(ctx.index()).name);
  return r;
}

void run_bench(const BenchOptions& o) {
  const BenchPlan plan = plan_bench(o);
  Context ctx = o.common.context();
  ctx.graphs = !o.eager;
  if (plan.tf32 && ctx.device() == Device::kCpu)
    throw UsageError("--precision tf32: is for GPUs; give bf16 or f32 on the CPU");
  if (!o.json.empty()) require_new_file("--json", o.json, o.force);
  BenchResult result = Bench(ctx, plan, o.common).run();
  result.layers = named_shape(o.shape).layers;
  result.device = describe_device(ctx);
  result.roofs = measure_roofs(ctx, plan);
  print(stdout, (o.common.quiet ? "" : "\n") + bench_table(result));
  if (!o.json.empty()) write_file(o.json, bench_json(result).dump(1) + "\n");
}

}  // namespace

void add_bench(CLI::App& app) {
  const auto options = std::make_shared<BenchOptions>();
  CLI::App* command =
      app.add_subcommand("bench", "how fast this machine trains, on random weights of a known shape; with roofs");
  options->add(*command);
  command->callback([options] { run_bench(*options); });
}

}  // namespace gsae
