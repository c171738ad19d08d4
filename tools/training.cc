#include "tools/training.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/matmul.h"
#include "kernels/range.h"
#include "tools/interrupt.h"
#include "tools/run_record.h"

namespace gsae {

namespace {

constexpr int64_t kCalibrationRows = 1 << 17;

double seconds_since(std::chrono::steady_clock::time_point t) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count();
}

std::string format_duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  return s >= 60 ? fmt::format("{}m{:02}s", s / 60, s % 60) : fmt::format("{}s", s);
}

}  // namespace

Training::Training(Context& ctx, Run& run, RowSource& source, ActivationBuffer& buffer, SaeTrainer& trainer,
                   RunFolder& folder, std::unique_ptr<SavedParameters> given)
    : ctx_(ctx),
      run_(run),
      source_(source),
      buffer_(buffer),
      trainer_(trainer),
      folder_(folder),
      given_(std::move(given)),
      progress_(run.options.common.quiet) {}

void Training::run() {
  const Range range("training");
  const Recipe& recipe = trainer_.recipe();
  start_ = Clock::now();
  prepare();
  for (int64_t step = 0; step < recipe.steps && !interrupted() && try_refill(); ++step) {
    profile(step);
    sae_time_.start(ctx_);
    buffer_.draw(ctx_, trainer_.workspace().x, run_.C);
    trainer_.step(ctx_, step);
    sae_time_.stop(ctx_);
    run_.steps_done = step + 1;
    if (trainer_.metrics_ready()) report();
    if (run_.steps_done % run_.options.log_every == 0 || run_.steps_done == recipe.steps || interrupted())
      request_report(run_.steps_done);
    if (progress_.due()) show_progress(run_.steps_done);
  }
  profile(recipe.steps);
  request_report(run_.steps_done);
  report();
  ctx_.synchronize();
  const std::vector<std::string> products = chosen_products(ctx_);
  if (run_.steps_done > 0 && !products.empty() && !folder_.write_products(products))
    progress_.note(fmt::format("{}/products.txt could not be written (is the disk full?)", folder_.path()));
  if (interrupted() && run_.steps_done < recipe.steps) run_.stopped = "interrupted";
  if (run_.stopped.empty()) return;
  if (run_.steps_done == 0) throw Interrupted();
}

// On a GPU a report comes a step or two after it was asked for, while training goes on.
void Training::request_report(int64_t done) {
  report();
  if (trainer_.request_metrics(ctx_, dead_window())) reported_ = done;
  if (trainer_.metrics_ready()) report();
}

void Training::profile(int64_t step) {
  if (run_.plan.profile_end == 0) return;
  if (step == run_.plan.profile_begin) start_profiler();
  if (step == std::min(run_.plan.profile_end, trainer_.recipe().steps)) {
    ctx_.synchronize();  // what was asked for up to here belongs to the recording
    stop_profiler();
  }
}

// Gemma runs only when there is room for what it brings, and never for more rows than the run will use.
void Training::refill() {
  while (buffer_.has_room() && arrived_ < run_.plan.tokens) {
    const int64_t before = buffer_.held();
    model_time_.start(ctx_);
    const bool filled = source_.fill(ctx_, buffer_);
    model_time_.stop(ctx_);
    if (!filled) {
      if (buffer_.held() >= trainer_.recipe().batch) return;  // the rest is trained on first
      throw Error(
          fmt::format("the data ended after {} activations of the {} that the run needs: give more --data, fewer "
                      "--tokens or a shorter --context",
                      arrived_, run_.plan.tokens));
    }
    const int64_t rows = buffer_.held() - before;
    arrived_ += rows;
    model_rows_ += rows;
    if (run_.steps_done == 0 && progress_.due())
      progress_.show(fmt::format("filling the activation buffer: {} of {}", format_count(double(arrived_)),
                                 format_count(double(std::min(buffer_.slots(), run_.plan.tokens)))));
    if (source_.epoch() > epoch_) {
      epoch_ = source_.epoch();
      progress_.note(fmt::format("the data has been read {}: it starts again{}",
                                 epoch_ == 1 ? "once" : fmt::format("{} times", epoch_),
                                 run_.options.no_shuffle ? "" : ", in another order"));
    }
    if (interrupted() && run_.steps_done == 0) throw Interrupted();
  }
}

// Bad data late in a run are no reason to lose what was trained before.
bool Training::try_refill() {
  try {
    refill();
    return true;
  } catch (const Error& e) {
    if (run_.steps_done == 0) throw;
    run_.stopped = e.what();
    return false;
  }
}

void Training::prepare() {
  refill();
  if (run_.C == 0) run_.C = buffer_.calibrate(ctx_, kCalibrationRows, trainer_.workspace().x);
  const SaeRecord record{run_.sae(), source_.width(), run_.C, run_.recipe};
  folder_.write_config(config_json(run_, {&record, 1}, buffer_.slots()));
  if (given_) {
    trainer_.start(ctx_, given_->params);
    given_.reset();
    return;
  }
  buffer_.sample(ctx_, trainer_.workspace().x, run_.C);
  trainer_.start(ctx_);
}

void Training::report() {
  if (reported_ == 0) return;
  const Recipe& recipe = trainer_.recipe();
  const StepMetrics m = trainer_.take_metrics();
  const int64_t done = std::exchange(reported_, 0);
  if (!std::isfinite(m.loss))
    throw Error(
        fmt::format("the loss is {} at step {}: training diverged (try a smaller --lr; it was {:g}), or the "
                    "activations hold NaN or infinity",
                    m.loss, done, recipe.lr));
  if (done * 10 > recipe.steps * 9) tail_l0_ += m.l0 * double(m.rows), tail_rows_ += m.rows;
  run_.l0 = tail_rows_ > 0 ? tail_l0_ / double(tail_rows_) : m.l0;
  run_.lambda = m.lambda;
  last_ = m;

  const double roof_seconds = seconds_at_the_roof();
  const double elapsed = seconds_since(start_);
  nlohmann::ordered_json line = metrics_json(run_.sae().name(), done, recipe.batch, m);
  line["tokens_per_second"] = double(done * recipe.batch) / elapsed;
  line["model_seconds"] = model_time_.seconds();
  line["sae_seconds"] = sae_time_.seconds();
  line["roof_fraction"] = roof_seconds / elapsed;
  line["epoch"] = source_.epoch();
  if (!folder_.log(line) && !log_failed_) {
    log_failed_ = true;
    progress_.note(
        fmt::format("{}/train.jsonl cannot be written any more (is the disk full?); training goes on", folder_.path()));
  }
  if (done == recipe.steps) show_progress(done);
}

void Training::show_progress(int64_t done) {
  const Recipe& recipe = trainer_.recipe();
  const double roof_seconds = seconds_at_the_roof(), elapsed = seconds_since(start_);
  const double tokens = double(done * recipe.batch);
  std::string line =
      fmt::format("step {}/{}  {} tokens  {:.0f} tok/s  {} left", done, recipe.steps, format_count(tokens),
                  tokens / elapsed, format_duration(elapsed / double(done) * double(recipe.steps - done)));
  if (last_.rows > 0)  // there has been a report
    line += fmt::format("  loss {:.4f}  L0 {:.1f}  FVU {:.4f}  dead {:.1f}%", last_.loss, last_.l0, last_.fvu,
                        100.0 * double(last_.dead) / double(run_.sae().latents));
  progress_.show(line + fmt::format("  {:.0f}% of roof", 100 * roof_seconds / elapsed));
}

// The time that the products of the work so far would take at this machine's measured peaks.
double Training::seconds_at_the_roof() {
  // five products of 2 d F FLOP a row: encode, decode, the latents' gradient, and those of both weights
  const double per_row = 10.0 * double(source_.width()) * double(run_.sae().latents);
  return double(model_rows_) * source_.flops_per_row() / run_.model_peak +
         double(run_.steps_done * trainer_.recipe().batch) * per_row / run_.sae_peak;
}

// Gemma Scope calls a latent dead that has not fired for 10M tokens; short runs scale that down.
int64_t Training::dead_window() const {
  return std::min<int64_t>(10'000'000, std::max<int64_t>(run_.plan.tokens / 5, 1));
}

}  // namespace gsae
