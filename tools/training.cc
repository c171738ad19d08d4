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
#include "tools/step_cost.h"

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

// Of the steps behind these metrics. Dense: five products. Exactly sparse: the encoder's, and four passes over a row
// for each entry.
double step_flops(const StepMetrics& m, int64_t d, int64_t F) {
  const double sparse = double(m.sparse_rows), dense = double(m.rows) - sparse;
  return dense * sae_flops_per_row(d, F) + sparse * (2.0 * double(d) * double(F) + 8.0 * double(d) * m.entries);
}

}  // namespace

Training::Training(Context& ctx, Run& run, Pass& pass, RowSource& source, ActivationBuffer& buffer, SaeSuite& suite,
                   RunFolder& folder, RunCheckpoints& checkpoints, std::shared_ptr<SavedParameters> given)
    : ctx_(ctx),
      run_(run),
      pass_(pass),
      source_(source),
      buffer_(buffer),
      suite_(suite),
      folder_(folder),
      checkpoints_(checkpoints),
      given_(std::move(given)),
      progress_(run.options.common.quiet),
      tails_(suite.size()),
      last_(suite.size()),
      outliers_(buffer.places(), run.plan.longest_row) {
  pass_.outcomes.resize(suite.size());
}

void Training::run() {
  const Range range("training");
  const int64_t steps = run_.plan.steps;
  start_ = Clock::now();
  if (before_.filled) folder_.write_config(config_json(run_, run_.saes, buffer_.slots()));
  else prepare();
  for (int64_t step = pass_.steps_done; step < steps && !interrupted() && try_refill(); ++step) {
    profile(step);
    sae_time_.start(ctx_);
    buffer_.draw(ctx_, suite_.batch());
    suite_.step(ctx_, buffer_, step);
    sae_time_.stop(ctx_);
    pass_.steps_done = step + 1;
    if (report_ready()) report();
    if (pass_.steps_done % run_.plan.log_every == 0 || pass_.steps_done == steps || interrupted())
      request_report(pass_.steps_done);
    if (progress_.due()) show_progress(pass_.steps_done);
    if (pass_.steps_done < steps && checkpoints_.due(pass_.steps_done * suite_.batch(), suite_.batch())) save(false);
  }
  profile(steps);
  request_report(pass_.steps_done);
  report();
  ctx_.synchronize();
  const std::vector<std::string> products = chosen_products(ctx_);
  if (pass_.steps_done > 0 && !products.empty() && !folder_.write_products(products))
    progress_.note(fmt::format("{}/products.txt could not be written (is the disk full?)", folder_.path()));
  if (interrupted() && pass_.steps_done < steps) {
    pass_.stopped = "interrupted";
    if (pass_.steps_done > 0) save(true);
  }
  if (pass_.stopped.empty()) return;
  if (pass_.steps_done == 0) fail_interrupted();
}

// On a GPU a report comes a step or two after it was asked for, while training goes on.
void Training::request_report(int64_t done) {
  report();
  for (int64_t i = 0; i < suite_.size(); ++i)
    if (suite_.trainer(i).request_metrics(ctx_, dead_window())) reported_ = done;
  if (report_ready()) report();
}

bool Training::report_ready() {
  for (int64_t i = 0; i < suite_.size(); ++i)
    if (!suite_.trainer(i).metrics_ready()) return false;
  return true;
}

void Training::profile(int64_t step) {
  if (run_.plan.profile_end == 0) return;
  if (step == run_.plan.profile_begin) start_profiler();
  if (step == std::min(run_.plan.profile_end, run_.plan.steps)) {
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
      if (buffer_.held() >= suite_.batch()) return;  // the rest is trained on first
      throw Error(
          fmt::format("the data ended after {} activations of the {} that the run needs: give more --data, fewer "
                      "--tokens or a shorter --context",
                      arrived_, run_.plan.tokens));
    }
    check_rows(outliers_.arrived(ctx_, buffer_));
    const int64_t rows = buffer_.held() - before;
    arrived_ += rows;
    model_rows_ += rows;
    if (pass_.steps_done == 0 && progress_.due())
      progress_.show(fmt::format("filling the activation buffer: {} of {}", format_count(double(arrived_)),
                                 format_count(double(std::min(buffer_.slots(), run_.plan.tokens)))));
    if (source_.epoch() > epoch_) {
      epoch_ = source_.epoch();
      progress_.note(fmt::format("the data has been read {}: it starts again{}",
                                 epoch_ == 1 ? "once" : fmt::format("{} times", epoch_),
                                 run_.options.no_shuffle ? "" : ", in another order"));
    }
    if (interrupted() && pass_.steps_done == 0) fail_interrupted();
  }
}

// Bad data late in a run are no reason to lose what was trained before.
bool Training::try_refill() {
  try {
    refill();
    return true;
  } catch (const Error& e) {
    if (pass_.steps_done == 0 || broken_) throw;
    pass_.stopped = e.what();
    return false;
  }
}

// No row with NaN may be left in a buffer that results come from: the run ends here.
void Training::check_rows(std::optional<OutlierWatch::Broken> broken) {
  if (!broken) return;
  broken_ = true;
  const Place& place = pass_.places[broken->place];
  throw Error(fmt::format(
      "{}.{}: activation {} of those that came after step {} holds NaN or infinity, or is too long to be squared: it "
      "is "
      "the model that broke, not an SAE; check its weights (gemma_sae info MODEL), or try --dtype f32. Nothing of this "
      "pass is written; the checkpoints before it stay",
      name(place.site), place.layer, broken->row, pass_.steps_done));
}

void Training::prepare() {
  refill();
  check_rows(outliers_.finish());
  if (run_.options.input_scale > 0) suite_.set_scale(run_.options.input_scale);
  else suite_.calibrate(ctx_, buffer_, kCalibrationRows);
  for (int64_t i = 0; i < suite_.size(); ++i) run_.saes[pass_.saes[i]].input_scale = suite_.scale(suite_.place(i));
  folder_.write_config(config_json(run_, run_.saes, buffer_.slots()));
  if (given_) {
    for (int64_t i = 0; i < suite_.size(); ++i) suite_.trainer(i).start(ctx_, given_->params);
    given_.reset();
    return;
  }
  buffer_.sample(ctx_, suite_.batch());
  suite_.start(ctx_, buffer_);
}

void Training::report() {
  if (reported_ == 0) return;
  const int64_t done = std::exchange(reported_, 0);
  check_rows(outliers_.finish());  // before a loss that they have broken is taken for the SAE's
  for (int64_t i = 0; i < suite_.size(); ++i) {
    SaeTrainer& trainer = suite_.trainer(i);
    const StepMetrics m = trainer.take_metrics();
    if (!std::isfinite(m.loss)) fail_diverged(i, m.loss, done);
    Tail& tail = tails_[i];
    if (done * 10 > run_.plan.steps * 9) tail.l0 += m.l0 * double(m.rows), tail.rows += m.rows;
    pass_.outcomes[i].l0 = tail.rows > 0 ? tail.l0 / double(tail.rows) : m.l0;
    pass_.outcomes[i].lambda = m.lambda;
    sae_flops_ += step_flops(m, trainer.state().width(), trainer.state().latent_count());
    last_[i] = m;
  }
  log(done);
  if (done != run_.plan.steps) return;
  show_progress(done);
  if (suite_.size() > 1) progress_.note(suite_table(statuses(), 1));
  report_outliers();
}

void Training::report_outliers() {
  for (size_t p = 0; p < pass_.places.size(); ++p) {
    const OutlierWatch::Seen& seen = outliers_.seen()[p];
    if (seen.outliers + seen.dropped == 0) continue;
    std::string what;
    if (seen.dropped > 0)
      what = fmt::format("{} activations were longer than {:g} times the mean and dropped", seen.dropped,
                         run_.plan.longest_row);
    else
      what = fmt::format("{} activations were longer than {:g} times the mean; --max-norm-multiple drops such",
                         seen.outliers, OutlierWatch::kOutlier);
    progress_.note(fmt::format("{}.{}: {} (the longest: {:.3g} times)", name(pass_.places[p].site),
                               pass_.places[p].layer, what, seen.longest));
  }
}

void Training::fail_interrupted() const {
  if (pass_.number == 1) throw Interrupted();
  throw Interrupted(
      fmt::format("interrupted at the beginning of pass {} of {}; go on with: gemma_sae train --resume {}",
                  pass_.number, pass_.of, folder_.path()));
}

void Training::fail_diverged(int64_t sae, double loss, int64_t step) {
  throw Error(fmt::format(
      "{}: the loss is {} at step {}, and all activations are finite: this SAE diverged; try a smaller --lr "
      "(it was {:g}). Nothing of this pass is written; the checkpoints before it stay",
      run_.saes[pass_.saes[sae]].member.name(), loss, step, suite_.trainer(sae).recipe().lr));
}

void Training::log(int64_t done) {
  const double elapsed = seconds(), at_the_roof = seconds_at_the_roof();
  for (int64_t i = 0; i < suite_.size(); ++i) {
    nlohmann::ordered_json line = metrics_json(run_.saes[pass_.saes[i]].member.name(), done, suite_.batch(), last_[i]);
    line["tokens_per_second"] = double(done * suite_.batch()) / elapsed;
    line["model_seconds"] = before_.model_seconds + model_time_.seconds();
    line["sae_seconds"] = before_.sae_seconds + sae_time_.seconds();
    line["roof_fraction"] = at_the_roof / elapsed;
    line["epoch"] = source_.epoch();
    const OutlierWatch::Seen& seen = outliers_.seen()[suite_.place(i)];
    line["outliers"] = seen.outliers;
    line["dropped"] = seen.dropped;
    if (!folder_.log(line) && !log_failed_) {
      log_failed_ = true;
      progress_.note(fmt::format("{}/train.jsonl cannot be written any more (is the disk full?); training goes on",
                                 folder_.path()));
    }
  }
}

void Training::show_progress(int64_t done) {
  const int64_t steps = run_.plan.steps;
  const double at_the_roof = seconds_at_the_roof(), elapsed = seconds();
  const double tokens = double(done * suite_.batch());
  std::string line = fmt::format("step {}/{}  {} tokens  {:.0f} tok/s  {} left", done, steps, format_count(tokens),
                                 tokens / elapsed, format_duration(elapsed / double(done) * double(steps - done)));
  if (last_[0].rows > 0) {  // there has been a report
    const StepMetrics& m = last_[0];
    if (suite_.size() == 1)
      line += fmt::format("  loss {:.4f}  L0 {:.1f}{}  FVU {:.4f}  dead {:.1f}%", m.loss, m.l0,
                          m.target_l0 > 0 ? fmt::format("/{:.1f}", m.target_l0) : "", m.fvu,
                          100.0 * double(m.dead) / double(suite_.trainer(0).state().latent_count()));
    else line += "  " + suite_line(statuses(), double(done) / double(steps));
  }
  progress_.show(line + fmt::format("  {:.0f}% of roof", 100 * at_the_roof / elapsed));
}

std::vector<SuiteStatus> Training::statuses() const {
  std::vector<SuiteStatus> statuses;
  for (size_t i = 0; i < last_.size(); ++i) {
    const SaeRecord& sae = run_.saes[pass_.saes[i]];
    statuses.push_back({sae.member.name(), sae.member.latents, last_[i]});
  }
  return statuses;
}

double Training::seconds() const { return before_.seconds + seconds_since(start_); }

// The time that the products of the work so far would take at this machine's measured peaks.
double Training::seconds_at_the_roof() {
  return double(model_rows_) * source_.flops_per_row() / run_.model_peak + sae_flops_ / run_.sae_peak;
}

// Gemma Scope calls a latent dead that has not fired for 10M tokens; short runs scale that down.
int64_t Training::dead_window() const {
  return std::min<int64_t>(10'000'000, std::max<int64_t>(run_.plan.tokens / 5, 1));
}

}  // namespace gsae
