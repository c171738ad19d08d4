#include "sae/sae_state.h"

#include "kernels/adam.h"
#include "kernels/sparsity.h"
#include "kernels/statistics.h"

namespace gsae {

namespace {

LatentTensors latent_tensors(Arena& arena, int64_t width, int64_t latents) {
  return {.W_enc = arena.take("W_enc", DType::kF32, {latents, width}),
          .W_dec = arena.take("W_dec", DType::kF32, {latents, width}),
          .b_enc = arena.take("b_enc", DType::kF32, {latents}),
          .threshold = arena.take("threshold", DType::kF32, {latents})};
}

}  // namespace

SaeState::SaeState(Arena& arena, int64_t width, int64_t F, DType precision) {
  latents.p = latent_tensors(arena, width, F);
  latents.v = latent_tensors(arena, width, F);
  if (precision == DType::kBF16) {
    latents.W_enc16 = arena.take("W_enc bf16", DType::kBF16, {F, width});
    latents.W_dec16 = arena.take("W_dec bf16", DType::kBF16, {F, width});
  }
  latents.stamp = arena.take("stamp", DType::kI64, {F});
  b_dec = arena.take("b_dec", DType::kF32, {width});
  b_dec_moment = arena.take("b_dec moment", DType::kF32, {width});
  rates = arena.take("rates", DType::kF32, {kRates});
  clock = arena.take("clock", DType::kI64, {1});
  control = arena.take("control", DType::kF32, {kControls});
  fired = arena.take("fired", DType::kI32, {F});
  idle = arena.take("idle", DType::kI64, {F});
  fired_total = arena.take("fired_total", DType::kI64, {F});
  step_l0 = arena.take("step_l0", DType::kF64, {1});
  log = arena.take("log", DType::kF64, {kLatentStatistics + 4 + width});
  latents_summary = log.rows(0, kLatentStatistics);
  sums = log.rows(kLatentStatistics, log.dim[0]);
  sum_error = sums.rows(0, 1), sum_l0 = sums.rows(1, 2), sum_penalty = sums.rows(2, 3), sum_x2 = sums.rows(3, 4);
  sum_x = sums.rows(4, 4 + width);
}

std::vector<std::pair<std::string, Tensor>> SaeState::persistent() const {
  const LatentTensors &p = latents.p, &v = latents.v;
  return {{"W_enc", p.W_enc},
          {"W_dec", p.W_dec},
          {"b_enc", p.b_enc},
          {"threshold", p.threshold},
          {"b_dec", b_dec},
          {"W_enc_moment", v.W_enc},
          {"W_dec_moment", v.W_dec},
          {"b_enc_moment", v.b_enc},
          {"threshold_moment", v.threshold},
          {"b_dec_moment", b_dec_moment},
          {"stamp", latents.stamp},
          {"control", control},
          {"fired", fired},
          {"idle", idle},
          {"fired_total", fired_total},
          {"step_l0", step_l0},
          {"sums", sums}};
}

}  // namespace gsae
