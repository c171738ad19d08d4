#include "sae/sae_parameters.h"

namespace gsae {

SaeParameters::SaeParameters(Arena& arena, int64_t width, int64_t latents)
    : W_enc(arena.take("W_enc", DType::kF32, {width, latents})),
      W_dec(arena.take("W_dec", DType::kF32, {latents, width})),
      b_enc(arena.take("b_enc", DType::kF32, {latents})),
      b_dec(arena.take("b_dec", DType::kF32, {width})),
      threshold(arena.take("threshold", DType::kF32, {latents})) {}

}  // namespace gsae
