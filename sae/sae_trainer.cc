#include "sae/sae_trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/adam.h"
#include "kernels/elementwise.h"
#include "kernels/range.h"
#include "kernels/sparsity.h"
#include "kernels/statistics.h"
#include "sae/dense_step.h"
#include "sae/sparse_step.h"
#include "sae/start.h"
#include "sae/transposed.h"

namespace gsae {

SaeTrainer::SaeTrainer(Arena& state, Arena& workspace, const Recipe& recipe, const StepSizes& sizes, int64_t width,
                       int64_t latents, DType precision, StepKind kind)
    : recipe_(recipe),
      sizes_(sizes),
      kind_(kind),
      state_(state, width, latents, precision),
      workspace_(workspace, sizes, width, latents, precision) {}

namespace {

constexpr double kEnter = 0.8;  // of the entries up to which it is the faster one: then a step becomes sparse again

}  // namespace

void SaeTrainer::start(Context& ctx) {
  start_training(ctx, state_, workspace_, recipe_);
  start_control(ctx);
}

void SaeTrainer::start(Context& ctx, const SaeParameters& given) {
  start_from(ctx, state_, given);
  start_control(ctx);
}

void SaeTrainer::prepare(Context& ctx) {
  since_ = {}, requested_ = {};
  last_step_ = 0;
  if (!prepared_) {
    rates_ = Upload(ctx, state_.rates.bytes());
    schedule_ = Upload(ctx, 3 * sizeof(float));
    clock_ = Upload(ctx, state_.clock.bytes());
    log_ = Readback(ctx, state_.log.bytes());
    control_ = Readback(ctx, state_.control.bytes());
    count_ = Readback(ctx, workspace_.sparse.entries.count.bytes());
    step_l0_ = Readback(ctx, state_.step_l0.bytes());
  }
  prepared_ = true, reviewing_ = false, reviewed_l0_.reset();
}

SaeTrainer::Progress SaeTrainer::progress() {
  CHECK(requested_.rows == 0, "progress: metrics are on their way");
  if (reviewing_ && !reviewed_l0_) reviewed_l0_ = step_l0_.wait<double>()[0];
  return {sparse_, reviewed_l0_, since_.rows, since_.sparse_rows, since_.entries, last_step_};
}

void SaeTrainer::resume(Context& ctx, const Progress& p) {
  prepare(ctx);
  refresh_copies(ctx, state_);
  sparse_ = p.sparse;
  reviewed_l0_ = p.reviewed_l0;
  reviewing_ = reviewed_l0_.has_value();
  since_.rows = p.rows, since_.sparse_rows = p.sparse_rows, since_.entries = p.entries;
  last_step_ = p.last_step;
}

void SaeTrainer::start_control(Context& ctx) {
  prepare(ctx);
  // A start from data knows its L0. Any other start is dense until its L0 has been measured.
  const double first = recipe_.start_l0 * double(sizes_.batch);
  sparse_ = kind_ == StepKind::kSparse || (kind_ == StepKind::kAuto && recipe_.start == Recipe::Start::kData &&
                                           first < kEnter * double(sizes_.limit));
  std::array<float, kControls> control{};
  control[kLambdaSteady] = static_cast<float>(recipe_.lambda);
  control[kThresholdFactor] = 1;
  copy(ctx, state_.control, view(control.data(), {kControls}));
  ctx.synchronize();  // before the values go
}

void SaeTrainer::send_schedules(Context& ctx, int64_t step) {
  int64_t t = step + 1;
  const double unbias = 1 / (1 - std::pow(recipe_.beta2, double(t)));
  std::array rates{static_cast<float>(recipe_.lr_at(step)), static_cast<float>(recipe_.beta2),
                   static_cast<float>(unbias), 1.0f};
  const double target = recipe_.target_l0_at(step), next = recipe_.target_l0_at(step + 1);
  std::array schedule{static_cast<float>(recipe_.lambda_scale_at(step)), static_cast<float>(target),
                      target > 0 ? static_cast<float>(std::log(next / target)) : 0.0f};
  rates_.send(ctx, state_.rates, view(rates.data(), {kRates}));
  schedule_.send(ctx, state_.control.rows(kLambdaScale, kTargetRise + 1), view(schedule.data(), {3}));
  clock_.send(ctx, state_.clock, view(&t, {1}));
}

// The plain recipe's lambda is this step's; the controller's follows from the L0 of the step before.
void SaeTrainer::step(Context& ctx, int64_t step) {
  const Range range("SAE step");
  send_schedules(ctx, step);
  review(ctx, step);
  if (!sparse_ || !try_sparse(ctx)) dense(ctx);
  since_.rows += recipe_.batch;
  last_step_ = step;
}

namespace {

void control_before(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& r) {
  if (!r.controller) control_sparsity(ctx, s.control, w.l0, {}, {});
}

void control_after(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& r) {
  if (!r.controller) return;
  control_sparsity(ctx, s.control, w.l0, w.error,
                   {.integral = static_cast<float>(r.integral_gain),
                    .proportional = static_cast<float>(r.proportional_gain),
                    .threshold = static_cast<float>(r.threshold_gain)});
  move_thresholds(ctx, s.p().threshold, s.control);
}

}  // namespace

void SaeTrainer::dense(Context& ctx) {
  dense_graph_.run(ctx, [&] {
    control_before(ctx, state_, workspace_, recipe_);
    dense_step(ctx, state_, workspace_, recipe_);
    control_after(ctx, state_, workspace_, recipe_);
  });
}

// The number of entries decides, and that is on the device: the one place where the host waits within a step, for the
// encoder's product. False: there are too many; from then on steps are dense, until review() finds otherwise.
bool SaeTrainer::try_sparse(Context& ctx) {
  find_graph_.run(ctx, [&] { find_entries(ctx, state_, workspace_, recipe_); });
  count_.request(ctx, workspace_.sparse.entries.count);
  const int64_t entries = count_.wait<int64_t>()[0];
  const bool fits = entries <= workspace_.sparse.entries.capacity();
  if (kind_ == StepKind::kAuto && entries > sizes_.limit) sparse_ = false;
  if (!fits) return false;
  sparse_graph_.run(ctx, [&] {
    control_before(ctx, state_, workspace_, recipe_);
    sparse_step(ctx, state_, workspace_, recipe_);
    control_after(ctx, state_, workspace_, recipe_);
  });
  since_.sparse_rows += recipe_.batch;
  since_.entries += double(entries);
  return true;
}

// Every so many dense steps: would a sparse one be faster by now? Asked for some steps before it is looked at, so that
// a GPU's host does not wait; always at the same steps, so that a run can be repeated.
void SaeTrainer::review(Context& ctx, int64_t step) {
  constexpr int64_t kEvery = 8, kAhead = 2;
  if (kind_ != StepKind::kAuto || sparse_) return;
  if (step % kEvery == kEvery - kAhead && step > 0) {
    step_l0_.request(ctx, state_.step_l0);
    reviewing_ = true, reviewed_l0_.reset();
  }
  if (step % kEvery == 0 && reviewing_) {
    reviewing_ = false;
    const double l0 = reviewed_l0_ ? *reviewed_l0_ : step_l0_.wait<double>()[0];
    sparse_ = l0 < kEnter * double(sizes_.limit);
  }
}

bool SaeTrainer::request_metrics(Context& ctx, int64_t dead_window) {
  if (since_.rows == 0) return false;
  summarise_latents(ctx, state_.latents_summary, state_.idle, state_.p().threshold, dead_window);
  log_.request(ctx, state_.log);
  control_.request(ctx, state_.control);
  fill_zero(ctx, state_.sums);
  requested_ = std::exchange(since_, {});
  requested_.lr = recipe_.lr_at(last_step_);
  return true;
}

StepMetrics SaeTrainer::take_metrics() {
  CHECK(requested_.rows > 0, "take_metrics: none were asked for");
  const std::vector<double> log = log_.wait<double>();
  const double *latents = log.data(), *sums = log.data() + kLatentStatistics;
  StepMetrics m = std::exchange(requested_, {});
  const double n = static_cast<double>(m.rows);
  m.mse = sums[0] / n;
  m.l0 = sums[1] / n;
  m.penalty = sums[2] / n;
  m.loss = m.mse + m.penalty;
  double mean_square = 0;
  for (int64_t c = 0; c < state_.width(); ++c) mean_square += (sums[4 + c] / n) * (sums[4 + c] / n);
  m.fvu = m.mse / (sums[3] / n - mean_square);
  m.dead = static_cast<int64_t>(latents[kDeadLatents]);
  m.threshold_mean = latents[kMeanThreshold];
  m.threshold_min = latents[kLowestThreshold];
  m.threshold_max = latents[kHighestThreshold];
  const auto control = control_.wait<float>();
  m.lambda = control[kLambda], m.target_l0 = control[kTargetL0];
  if (m.sparse_rows > 0) m.entries /= static_cast<double>(m.sparse_rows);
  return m;
}

void fold(Context& ctx, const SaeParameters& folded, const SaeState& s, double C) {
  save_transposed(ctx, folded.W_enc, s.p().W_enc);
  copy(ctx, folded.W_dec, s.p().W_dec);
  copy(ctx, folded.b_enc, s.p().b_enc);
  copy(ctx, folded.b_dec, s.b_dec);
  copy(ctx, folded.threshold, s.p().threshold);
  ctx.synchronize();
  const int64_t d = s.width(), latents = s.latent_count();
  float *W = folded.W_enc.data<float>(), *b = folded.b_enc.data<float>(), *b_dec = folded.b_dec.data<float>(),
        *theta = folded.threshold.data<float>();
  std::vector<double> shift(latents);
  for (int64_t c = 0; c < d; ++c)
    for (int64_t i = 0; i < latents; ++i) shift[i] += double(b_dec[c]) * W[c * latents + i];
  for (int64_t i = 0; i < latents; ++i) {
    b[i] = static_cast<float>(C * (b[i] - shift[i]));
    theta[i] = static_cast<float>(C * theta[i]);
  }
  for (int64_t c = 0; c < d; ++c) b_dec[c] = static_cast<float>(C * b_dec[c]);
}

}  // namespace gsae
