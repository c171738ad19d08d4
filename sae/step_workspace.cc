#include "sae/step_workspace.h"

#include <algorithm>

namespace gsae {

StepWorkspace::StepWorkspace(Arena& arena, const StepSizes& s, int64_t width, int64_t latents, DType precision)
    : x(arena.take("x", DType::kF32, {s.batch, width})),
      centred(arena.take("x - b_dec", precision, {s.batch, width})),
      dx(arena.take("dx", precision, {s.batch, width})),
      error(arena.take("error", DType::kF32, {s.batch})),
      l0(arena.take("l0", DType::kF32, {s.batch})),
      penalty(arena.take("penalty", DType::kF32, {s.batch})),
      dl0(arena.take("dl0", DType::kF32, {s.batch})),
      grad_b_dec(arena.take("grad b_dec", DType::kF32, {width})),
      pull_b_dec(arena.take("pull b_dec", DType::kF32, {width})) {
  Arena a = arena, b = arena;
  const int64_t tile = s.rows * s.latents;
  dense = {.z = a.take("z", DType::kF32, {tile}),
           .df = a.take("df", DType::kF32, {std::max(tile, s.rows * width)}),
           .f = a.take("f", precision, {tile}),
           .dz = a.take("dz", precision, {tile}),
           .x_hat = a.take("x_hat", DType::kF32, {s.rows, width}),
           .l0 = a.take("l0 of a tile", DType::kF32, {s.rows}),
           .grad = {.W_enc = a.take("grad W_enc", DType::kF32, {s.latents, width}),
                    .W_dec = a.take("grad W_dec", DType::kF32, {s.latents, width}),
                    .b_enc = a.take("grad b_enc", DType::kF32, {s.latents}),
                    .threshold = a.take("grad threshold", DType::kF32, {s.latents})}};
  sparse.zt = b.take("z of a tile", DType::kF32, {s.select, s.batch});
  sparse.entries = Entries(b, s.batch, latents, s.capacity);
  sparse.grad_b_enc = b.take("grad b_enc", DType::kF32, {latents});
  arena.cover(a);
  arena.cover(b);
}

}  // namespace gsae
