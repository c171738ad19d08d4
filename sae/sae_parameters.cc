#include "sae/sae_parameters.h"

namespace gsae {

SaeParameters::SaeParameters(Arena& arena, int64_t width, int64_t latents)
    : W_enc(arena.take("W_enc", DType::kF32, {width, latents})),
      W_dec(arena.take("W_dec", DType::kF32, {latents, width})),
      b_enc(arena.take("b_enc", DType::kF32, {latents})),
      b_dec(arena.take("b_dec", DType::kF32, {width})),
      threshold(arena.take("threshold", DType::kF32, {latents})) {}

SaeParameters on_device(Context& ctx, const SaeParameters& from, Buffer& memory) {
  if (from.W_enc.device == ctx.device()) return from;
  Arena plan;
  SaeParameters(plan, from.width(), from.latents());
  memory = Buffer(ctx.device(), plan.used());
  Arena arena(memory);
  const SaeParameters to(arena, from.width(), from.latents());
  for (const auto tensor : {&SaeParameters::W_enc, &SaeParameters::W_dec, &SaeParameters::b_enc, &SaeParameters::b_dec,
                            &SaeParameters::threshold})
    copy(ctx, to.*tensor, from.*tensor);
  ctx.synchronize();
  return to;
}

}  // namespace gsae
