#include "kernels/entries.h"

#include <vector>

#include "bench/timer.h"

// The lists of an exactly sparse step: selection against the bandwidth of memory, of which it reads the tile once (in a
// step, from a cache), the sort by row against the same, though what it moves is scattered.

namespace gsae::bench {

namespace {

// Such that so many of 10,000 normally distributed values are above it.
float threshold(int64_t of_10000) {
  switch (of_10000) {
    case 10: return 3.090f;
    case 25: return 2.807f;
    case 50: return 2.576f;
    case 150: return 2.170f;
  }
  throw Error("no threshold for " + std::to_string(of_10000) + " of 10000");
}

// Lists and what they are made from.
struct Made {
  Made(Context& ctx, Operands& on, int64_t batch, int64_t latents, int64_t tile, int64_t of_10000)
      : zt(on.random(DType::kF32, {tile, batch})),
        bias(on.zeros(DType::kF32, {tile})),
        theta(on.zeros(DType::kF32, {tile})) {
    const std::vector<float> same(size_t(tile), threshold(of_10000));
    copy(ctx, theta, view(const_cast<float*>(same.data()), {tile}));
    Arena plan;
    Entries(plan, batch, latents, capacity(batch, latents, of_10000));
    memory = Buffer(ctx.device(), plan.used());
    Arena arena(memory);
    entries = Entries(arena, batch, latents, capacity(batch, latents, of_10000));
    ctx.synchronize();  // before `same` goes
  }
  // Twice what comes.
  static int64_t capacity(int64_t batch, int64_t latents, int64_t of_10000) {
    return batch * latents / 5000 * of_10000;
  }
  void select(Context& ctx, int64_t first) const { select_entries(ctx, entries, zt, bias, theta, 0, first); }
  int64_t count(Context& ctx) const {
    int64_t n = 0;
    copy(ctx, view(&n, {1}), entries.count);
    ctx.synchronize();
    return n;
  }

  Tensor zt, bias, theta;
  Buffer memory;
  Entries entries;
};

// Args: batch, latents of a tile, entries in 10,000 of its elements.
void select(benchmark::State& state, Context& ctx) {
  const int64_t batch = state.range(0), tile = state.range(1), of_10000 = state.range(2);
  Operands on(ctx);
  const Made made(ctx, on, batch, tile, tile, of_10000);
  measure(state, ctx, [&] {
    clear_entries(ctx, made.entries);
    made.select(ctx, 0);
  });
  state.counters["entries"] = double(made.count(ctx));
  set_bytes(state, ctx, double(made.zt.bytes()));
}

// Args: batch, latents, entries in 10,000. What is sorted: a row in; a latent, a place and the row's begin out.
void transpose(benchmark::State& state, Context& ctx) {
  const int64_t batch = state.range(0), latents = state.range(1), of_10000 = state.range(2);
  Operands on(ctx);
  const int64_t tile = std::min<int64_t>(latents, 1024);
  const Made made(ctx, on, batch, latents, tile, of_10000);
  clear_entries(ctx, made.entries);
  for (int64_t i = 0; i < latents; i += tile) made.select(ctx, i);
  measure(state, ctx, [&] { transpose_entries(ctx, made.entries); });
  const double count = double(made.count(ctx));
  state.counters["entries"] = count;
  set_bytes(state, ctx, 4 * sizeof(int32_t) * count + double(made.entries.row_begin.bytes()));
}

// Tiles as a step has them: on the CPU they fit in L2 or L3, on a GPU in L2 (where they are cold here).
void register_all() {
  register_op("select_entries", select,
              {.cpu = {{4096, 512, 10}, {4096, 512, 150}, {4096, 64, 10}, {4096, 64, 150}},
               .cuda = {{4096, 2048, 10}, {4096, 2048, 150}, {4096, 16384, 50}}});
  const std::vector<std::vector<int64_t>> sorts{
      {4096, 4096, 25}, {4096, 6144, 10}, {4096, 16384, 25}, {4096, 16384, 150}};
  register_op("transpose_entries", transpose, {.cpu = sorts, .cuda = sorts});
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
