#include "kernels/entries.h"

namespace gsae {

Entries::Entries(Arena& arena, int64_t batch, int64_t latents, int64_t capacity)
    : begin(arena.take("begin", DType::kI32, {latents + 1})),
      row(arena.take("row", DType::kI32, {capacity})),
      z(arena.take("z", DType::kF32, {capacity})),
      df(arena.take("df", DType::kF32, {capacity})),
      row_begin(arena.take("row_begin", DType::kI32, {batch + 1})),
      latent(arena.take("latent", DType::kI32, {capacity})),
      place(arena.take("place", DType::kI32, {capacity})),
      count(arena.take("count", DType::kI64, {1})) {}

}  // namespace gsae
