#include "sae/dense_step.h"

#include <algorithm>

#include "kernels/adam.h"
#include "kernels/add.h"
#include "kernels/elementwise.h"
#include "kernels/jump_relu.h"
#include "kernels/latent_update.h"
#include "kernels/matmul.h"
#include "kernels/reconstruction.h"
#include "kernels/revive.h"
#include "kernels/rows.h"
#include "kernels/sparsity.h"
#include "kernels/statistics.h"
#include "sae/latent_options.h"

namespace gsae {

namespace {

class DenseStep {
 public:
  DenseStep(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe)
      : ctx_(ctx), s_(s), w_(w), recipe_(recipe) {}

  void run() {
    fill_zero(ctx_, w_.grad_b_dec);
    subtract_bias(ctx_, w_.centred, w_.x, s_.b_dec);
    const int64_t batch = w_.x.dim[0], rows = w_.dense.x_hat.dim[0];
    const int64_t F = s_.latent_count(), latents = w_.dense.grad.latents();
    if (latents == F) {  // z is still there when its gradient comes
      for (int64_t r = 0; r < batch; r += rows) {
        const Tile all{r, std::min(batch, r + rows), 0, F};
        encode(all, row(w_.l0, all), s_.fired);
        decode(all);
        residual(all);
        backward(all);
      }
      update({0, batch, 0, F});
      return;
    }
    for (int64_t r = 0; r < batch; r += rows) {
      Tile t{r, std::min(batch, r + rows), 0, 0};
      const Tensor of_tile = w_.dense.l0.rows(0, t.rows());
      fill_zero(ctx_, row(w_.l0, t));
      while (next(t, latents)) {
        encode(t, of_tile, s_.fired.rows(t.first, t.last));
        decode(t);
        add(ctx_, row(w_.l0, t), of_tile);
      }
      residual(t);
    }
    for (Tile t{0, 0, 0, 0}; next(t, latents);) {
      for (t.begin = 0; t.begin < batch; t.begin = t.end) {
        t.end = std::min(batch, t.begin + rows);
        encode(t, {}, {});
        backward(t);
      }
      update(t);
    }
  }

 private:
  // rows [begin, end) by latents [first, last)
  struct Tile {
    int64_t begin, end, first, last;
    int64_t rows() const { return end - begin; }
    int64_t latents() const { return last - first; }
  };

  bool next(Tile& t, int64_t latents) const {
    t.first = t.last;
    t.last = std::min(s_.latent_count(), t.first + latents);
    return t.first < t.last;
  }
  static Tensor row(Tensor of_batch, const Tile& t) { return of_batch.rows(t.begin, t.end); }
  static Tensor tile(Tensor flat, const Tile& t) {
    return flat.rows(0, t.rows() * t.latents()).reshape({t.rows(), t.latents()});
  }
  LatentState part(const Tile& t) const { return s_.latents.rows(t.first, t.last); }
  LatentTensors grad(const Tile& t) const { return w_.dense.grad.rows(0, t.latents()); }

  // z = (x - b_dec) W_enc + b_enc;  f = z where z > theta, else 0
  void encode(const Tile& t, Tensor l0, Tensor fired) {
    const LatentState p = part(t);
    const Tensor z = tile(w_.dense.z, t), f = tile(w_.dense.f, t);
    matmul(ctx_, z, row(w_.centred, t), encoder(p), {.transpose_b = true, .tf32 = recipe_.tf32, .bias = p.p.b_enc});
    jump_relu(ctx_, f, z, p.p.threshold, l0, fired);
  }

  // x_hat (+)= f W_dec
  void decode(const Tile& t) {
    matmul(ctx_, w_.dense.x_hat.rows(0, t.rows()), tile(w_.dense.f, t), decoder(part(t)),
           {.accumulate = t.first > 0, .tf32 = recipe_.tf32});
  }

  void residual(const Tile& t) {
    const int64_t batch = w_.x.dim[0];
    reconstruction_error(ctx_, row(w_.dx, t), row(w_.error, t), w_.grad_b_dec, w_.dense.x_hat.rows(0, t.rows()),
                         s_.b_dec, row(w_.x, t), 2.0f / float(batch));
    sparsity_penalty(ctx_, row(w_.dl0, t), row(w_.penalty, t), row(w_.l0, t), s_.control,
                     recipe_.penalty == Recipe::Penalty::kQuadratic, batch);
  }

  void backward(const Tile& t) {
    const LatentState p = part(t);
    const LatentTensors g = grad(t);
    const Tensor z = tile(w_.dense.z, t), f = tile(w_.dense.f, t), df = tile(w_.dense.df, t), dz = tile(w_.dense.dz, t);
    const bool add = t.begin > 0, tf32 = recipe_.tf32;
    if (!add) fill_zero(ctx_, g.b_enc), fill_zero(ctx_, g.threshold);
    matmul(ctx_, df, row(w_.dx, t), decoder(p), {.transpose_b = true, .tf32 = tf32});
    jump_relu_backward(ctx_, dz, g.b_enc, g.threshold, df, z, p.p.threshold, row(w_.dl0, t),
                       static_cast<float>(recipe_.bandwidth));
    matmul(ctx_, g.W_dec, f, row(w_.dx, t), {.transpose_a = true, .accumulate = add, .tf32 = tf32});
    matmul(ctx_, g.W_enc, dz, row(w_.centred, t), {.transpose_a = true, .accumulate = add, .tf32 = tf32});
  }

  // b_dec's other use, x - b_dec: its gradient is -sum_r W_enc dz[r] = -(b_enc's gradient) W_enc, with W_enc as it was
  void update(const Tile& t) {
    const LatentState p = part(t);
    const LatentTensors g = grad(t);
    matmul(ctx_, w_.pull_b_dec.reshape({1, s_.width()}), g.b_enc.reshape({1, t.latents()}), p.p.W_enc,
           {.accumulate = t.first > 0});
    update_latents(ctx_, p, g, s_.rates, s_.clock, latent_options(recipe_));
  }

  Context& ctx_;
  SaeState& s_;
  StepWorkspace& w_;
  const Recipe& recipe_;
};

}  // namespace

void dense_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe) {
  DenseStep(ctx, s, w, recipe).run();
  finish_step(ctx, s, w, recipe);
}

void finish_step(Context& ctx, SaeState& s, StepWorkspace& w, const Recipe& recipe) {
  subtract(ctx, w.grad_b_dec, w.pull_b_dec);
  adam(ctx, s.b_dec, s.b_dec_moment, w.grad_b_dec, {}, s.rates, {.epsilon = static_cast<float>(recipe.epsilon)});

  fill_zero(ctx, s.step_l0);
  add_sum(ctx, s.step_l0, w.l0);
  add_sum(ctx, s.sum_error, w.error);
  add_sum(ctx, s.sum_l0, w.l0);
  add_sum(ctx, s.sum_penalty, w.penalty);
  add_moments(ctx, s.sum_x, s.sum_x2, w.x);
  update_idle(ctx, s.idle, s.fired_total, s.fired, w.x.dim[0]);
  if (recipe.revive_rate > 0)
    revive_latents(ctx, s.p().threshold, s.idle, s.clock,
                   {.window = recipe.revive_window,
                    .rate = static_cast<float>(recipe.revive_rate),
                    .last = recipe.steps - recipe.steps / 5});
}

}  // namespace gsae
