#include "sae/sae_trainer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/adam.h"
#include "kernels/elementwise.h"
#include "kernels/sparsity.h"
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
  const double unbias = 1 / (1 - std::pow(recipe_.beta2, double(step + 1)));
  write_scalars(
      ctx, state_.rates,
      {static_cast<float>(recipe_.lr_at(step)), static_cast<float>(recipe_.beta2), static_cast<float>(unbias), 1.0f});
  const float scale = static_cast<float>(recipe_.lambda_scale_at(step));
  write_scalars(ctx, state_.control.rows(kLambdaScale, kLambdaScale + 1), {scale});

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

StepMetrics SaeTrainer::read_metrics(Context& ctx, int64_t dead_window) {
  StepMetrics m;
  m.rows = rows_since_read_;
  const double n = static_cast<double>(std::max<int64_t>(m.rows, 1));
  m.mse = read<double>(ctx, state_.sum_error)[0] / n;
  m.penalty = read<double>(ctx, state_.sum_penalty)[0] / n;
  m.loss = m.mse + m.penalty;
  m.l0 = read<double>(ctx, state_.sum_l0)[0] / n;
  double mean_square = 0;
  for (const double s : read<double>(ctx, state_.sum_x)) mean_square += (s / n) * (s / n);
  m.fvu = m.mse / (read<double>(ctx, state_.sum_x2)[0] / n - mean_square);
  for (const int64_t idle : read<int64_t>(ctx, state_.idle)) m.dead += idle >= dead_window;
  const std::vector<float> theta = read<float>(ctx, state_.p.threshold);
  for (const float t : theta) m.threshold_mean += t / static_cast<double>(theta.size());
  const auto [low, high] = std::minmax_element(theta.begin(), theta.end());
  m.threshold_min = *low;
  m.threshold_max = *high;
  m.lr = recipe_.lr_at(last_step_);
  m.lambda = read<float>(ctx, state_.control)[kLambda];
  for (const Tensor t : {state_.sum_error, state_.sum_penalty, state_.sum_l0, state_.sum_x, state_.sum_x2})
    fill_zero(ctx, t);
  rows_since_read_ = 0;
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
