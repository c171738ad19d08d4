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
#include "sae/start.h"

namespace gsae {

SaeTrainer::SaeTrainer(Arena& arena, const Recipe& recipe, int64_t tile, int64_t width, int64_t latents,
                       DType precision)
    : recipe_(recipe),
      state_(arena, width, latents, precision),
      workspace_(arena, recipe.batch, std::min(tile, recipe.batch), width, latents, precision) {}

namespace {

void write_scalars(Context& ctx, Tensor t, std::vector<float> values) {
  copy(ctx, t, view(values.data(), {static_cast<int64_t>(values.size())}));
  ctx.synchronize();  // before the values go
}

template <class T> std::vector<T> read(Context& ctx, Tensor t) {
  std::vector<T> values(t.size());
  Tensor host = view(values.data(), {t.size()});
  copy(ctx, host, t.reshape({t.size()}));
  ctx.synchronize();
  return values;
}

}  // namespace

void SaeTrainer::start(Context& ctx) {
  start_training(ctx, state_, workspace_, recipe_);
  start_control(ctx);
}

void SaeTrainer::start(Context& ctx, const SaeParameters& given) {
  start_from(ctx, state_, given);
  start_control(ctx);
}

void SaeTrainer::start_control(Context& ctx) {
  rows_since_read_ = last_step_ = 0;
  if (!prepared_) {
    rates_ = Upload(ctx, state_.rates.bytes());
    scale_ = Upload(ctx, sizeof(float));
    log_ = Readback(ctx, state_.log.bytes());
    control_ = Readback(ctx, state_.control.bytes());
  }
  prepared_ = true;
  double lambda = recipe_.lambda;
  if (recipe_.controller && lambda <= 0) {
    // A latent at its threshold lowers the squared error by about theta^2, which is what lambda must outweigh. Not
    // nothing, even where theta is: the controller multiplies.
    double theta = 0;
    for (const float t : read<float>(ctx, state_.p.threshold)) theta += t / static_cast<double>(state_.p.latents());
    lambda = std::max(theta * theta, 1e-8);
  }
  write_scalars(ctx, state_.control, {0, 0, static_cast<float>(lambda), static_cast<float>(recipe_.target_l0)});
}

void SaeTrainer::step(Context& ctx, int64_t step) {
  const Range range("SAE step");
  const double unbias = 1 / (1 - std::pow(recipe_.beta2, double(step + 1)));
  std::array rates{static_cast<float>(recipe_.lr_at(step)), static_cast<float>(recipe_.beta2),
                   static_cast<float>(unbias), 1.0f};
  auto scale = static_cast<float>(recipe_.lambda_scale_at(step));
  rates_.send(ctx, state_.rates, view(rates.data(), {kRates}));
  scale_.send(ctx, state_.control.rows(kLambdaScale, kLambdaScale + 1), view(&scale, {1}));

  graph_.run(ctx, [&] {
    // The plain recipe's lambda is this step's; the controller's follows from the L0 of the step before.
    if (!recipe_.controller) control_sparsity(ctx, state_.control, workspace_.l0, {});
    dense_gradients(ctx, state_, workspace_, recipe_);
    if (recipe_.controller)
      control_sparsity(ctx, state_.control, workspace_.l0,
                       {static_cast<float>(recipe_.integral_gain), static_cast<float>(recipe_.proportional_gain)});
    apply_gradients(ctx, state_, workspace_.grad, recipe_);
  });
  rows_since_read_ += recipe_.batch;
  last_step_ = step;
}

bool SaeTrainer::request_metrics(Context& ctx, int64_t dead_window) {
  if (rows_since_read_ == 0) return false;
  summarise_latents(ctx, state_.latents_summary, state_.idle, state_.p.threshold, dead_window);
  log_.request(ctx, state_.log);
  control_.request(ctx, state_.control);
  fill_zero(ctx, state_.sums);
  requested_ = {.rows = rows_since_read_, .lr = recipe_.lr_at(last_step_)};
  rows_since_read_ = 0;
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
  for (int64_t c = 0; c < state_.p.width(); ++c) mean_square += (sums[4 + c] / n) * (sums[4 + c] / n);
  m.fvu = m.mse / (sums[3] / n - mean_square);
  m.dead = static_cast<int64_t>(latents[kDeadLatents]);
  m.threshold_mean = latents[kMeanThreshold];
  m.threshold_min = latents[kLowestThreshold];
  m.threshold_max = latents[kHighestThreshold];
  m.lambda = control_.wait<float>()[kLambda];
  return m;
}

void fold(Context& ctx, const SaeParameters& folded, const SaeParameters& p, double C) {
  copy(ctx, folded.W_enc, p.W_enc);
  copy(ctx, folded.W_dec, p.W_dec);
  copy(ctx, folded.b_enc, p.b_enc);
  copy(ctx, folded.b_dec, p.b_dec);
  copy(ctx, folded.threshold, p.threshold);
  ctx.synchronize();
  const int64_t d = p.width(), latents = p.latents();
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
