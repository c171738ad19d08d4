#include "sae/dense_step.h"

#include "kernels/adam.h"
#include "kernels/elementwise.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/reconstruction.h"
#include "kernels/rows.h"
#include "kernels/sparsity.h"
#include "kernels/statistics.h"

namespace gsae {

SaeState::SaeState(Arena& arena, int64_t width, int64_t latents, DType precision)
    : p(arena, width, latents), second_moment(arena, width, latents) {
  if (precision == DType::kBF16) {
    W_enc16 = arena.take("W_enc bf16", DType::kBF16, {width, latents});
    W_dec16 = arena.take("W_dec bf16", DType::kBF16, {latents, width});
  }
  rates = arena.take("rates", DType::kF32, {kRates});
  control = arena.take("control", DType::kF32, {kControls});
  fired = arena.take("fired", DType::kI32, {latents});
  idle = arena.take("idle", DType::kI64, {latents});
  fired_total = arena.take("fired_total", DType::kI64, {latents});
  log = arena.take("log", DType::kF64, {kLatentStatistics + 4 + width});
  latents_summary = log.rows(0, kLatentStatistics);
  sums = log.rows(kLatentStatistics, log.dim[0]);
  sum_error = sums.rows(0, 1), sum_l0 = sums.rows(1, 2), sum_penalty = sums.rows(2, 3), sum_x2 = sums.rows(3, 4);
  sum_x = sums.rows(4, 4 + width);
}

DenseWorkspace::DenseWorkspace(Arena& arena, int64_t batch, int64_t tile, int64_t width, int64_t latents,
                               DType precision)
    : x(arena.take("x", DType::kF32, {batch, width})),
      centred(arena.take("x - b_dec", precision, {tile, width})),
      z(arena.take("z", DType::kF32, {tile, latents})),
      f(arena.take("f", precision, {tile, latents})),
      x_hat(arena.take("x_hat", DType::kF32, {tile, width})),
      dx(arena.take("dx", precision, {tile, width})),
      df(arena.take("df", DType::kF32, {tile, latents})),
      dz(arena.take("dz", precision, {tile, latents})),
      error(arena.take("error", DType::kF32, {batch})),
      l0(arena.take("l0", DType::kF32, {batch})),
      penalty(arena.take("penalty", DType::kF32, {batch})),
      dl0(arena.take("dl0", DType::kF32, {batch})),
      grad(arena, width, latents),
      pull_b_dec(arena.take("pull_b_dec", DType::kF32, {width, 1})) {}

void dense_gradients(Context& ctx, SaeState& s, DenseWorkspace& w, const Recipe& recipe) {
  const SaeParameters &p = s.p, &g = w.grad;
  const bool narrow = s.precision() == DType::kBF16, tf32 = recipe.tf32;
  const Tensor W_enc = narrow ? s.W_enc16 : p.W_enc, W_dec = narrow ? s.W_dec16 : p.W_dec;
  const int64_t batch = w.x.dim[0], tile = w.z.dim[0];
  const bool quadratic = recipe.penalty == Recipe::Penalty::kQuadratic;

  fill_zero(ctx, g.b_enc);
  fill_zero(ctx, g.b_dec);
  fill_zero(ctx, g.threshold);
  for (int64_t begin = 0; begin < batch; begin += tile) {
    const int64_t end = std::min(batch, begin + tile), n = end - begin;
    const Tensor x = w.x.rows(begin, end), l0 = w.l0.rows(begin, end), dl0 = w.dl0.rows(begin, end);
    const Tensor centred = w.centred.rows(0, n), z = w.z.rows(0, n), f = w.f.rows(0, n), x_hat = w.x_hat.rows(0, n);
    const Tensor dx = w.dx.rows(0, n), df = w.df.rows(0, n), dz = w.dz.rows(0, n);
    const bool add = begin > 0;

    subtract_bias(ctx, centred, x, p.b_dec);
    matmul(ctx, z, centred, W_enc, {.tf32 = tf32, .bias = p.b_enc});  // z = (x - b_dec) W_enc + b_enc
    jump_relu(ctx, f, z, p.threshold, l0, s.fired);                   // f = z where z > theta, else 0
    matmul(ctx, x_hat, f, W_dec, {.tf32 = tf32});                     // x_hat = f W_dec + b_dec
    reconstruction_error(ctx, dx, w.error.rows(begin, end), g.b_dec, x_hat, p.b_dec, x, 2.0f / float(batch));
    sparsity_penalty(ctx, dl0, w.penalty.rows(begin, end), l0, s.control, quadratic, batch);

    matmul(ctx, df, dx, W_dec, {.transpose_b = true, .tf32 = tf32});
    jump_relu_backward(ctx, dz, g.b_enc, g.threshold, df, z, p.threshold, dl0, static_cast<float>(recipe.bandwidth));
    matmul(ctx, g.W_dec, f, dx, {.transpose_a = true, .accumulate = add, .tf32 = tf32});
    matmul(ctx, g.W_enc, centred, dz, {.transpose_a = true, .accumulate = add, .tf32 = tf32});
  }
  // b_dec's other use, x - b_dec: its gradient is -sum_r W_enc dz[r] = -W_enc (b_enc's gradient)
  matmul(ctx, w.pull_b_dec, p.W_enc, g.b_enc.reshape({p.latents(), 1}));
  subtract(ctx, g.b_dec, w.pull_b_dec.reshape({p.width()}));

  add_sum(ctx, s.sum_error, w.error);
  add_sum(ctx, s.sum_l0, w.l0);
  add_sum(ctx, s.sum_penalty, w.penalty);
  add_moments(ctx, s.sum_x, s.sum_x2, w.x);
  update_idle(ctx, s.idle, s.fired_total, s.fired, batch);
}

void apply_gradients(Context& ctx, SaeState& s, const SaeParameters& g, const Recipe& recipe) {
  const AdamOptions plain{.epsilon = static_cast<float>(recipe.epsilon)};
  AdamOptions decoder = plain, threshold = plain;
  decoder.rate_scale = static_cast<float>(recipe.decoder_rate);
  threshold.rate_scale = static_cast<float>(recipe.threshold_rate);
  threshold.lowest = 0;  // theta >= 0
  SaeParameters &p = s.p, &v = s.second_moment;
  adam_unit_rows(ctx, p.W_dec, v.W_dec, g.W_dec, s.W_dec16, s.rates, decoder);
  adam(ctx, p.W_enc, v.W_enc, g.W_enc, s.W_enc16, s.rates, plain);
  adam(ctx, p.b_enc, v.b_enc, g.b_enc, {}, s.rates, plain);
  adam(ctx, p.b_dec, v.b_dec, g.b_dec, {}, s.rates, plain);
  adam(ctx, p.threshold, v.threshold, g.threshold, {}, s.rates, threshold);
}

}  // namespace gsae
