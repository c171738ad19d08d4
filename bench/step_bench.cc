#include <algorithm>
#include <cmath>
#include <utility>

#include "bench/timer.h"
#include "sae/sae_trainer.h"

// Whole training steps of one SAE, dense and exactly sparse, by the number of latents and how many of them are active:
// where one crosses the other. The learning rate is zero, so that L0 stays where the start puts it; all else is as in
// training.

namespace gsae::bench {

namespace {

// Args: batch, width, latents, L0. FLOP: of the products that this kind of step has, 5 of 2 B d F or one.
void step(benchmark::State& state, Context& ctx, DType precision, bool tf32, StepKind kind) {
  const int64_t batch = state.range(0), d = state.range(1), F = state.range(2), l0 = state.range(3);
  Recipe recipe;
  recipe.batch = batch;
  recipe.steps = 1 << 30;
  recipe.lr = 0;
  recipe.lambda = 1e-3;
  recipe.tf32 = tf32;
  recipe.start = Recipe::Start::kData;
  recipe.start_l0 = double(l0);
  StepSizes sizes = step_sizes(ctx.device(), batch, d, F);
  sizes.capacity = batch * std::min<int64_t>(F, 1024);  // beyond the break-even too
  Arena state_plan, workspace_plan;
  SaeTrainer(state_plan, workspace_plan, recipe, sizes, d, F, precision);
  const Buffer states(ctx.device(), state_plan.used()), workspace(ctx.device(), workspace_plan.used());
  commit(states), commit(workspace);
  Arena on_states(states), on_workspace(workspace);
  SaeTrainer trainer(on_states, on_workspace, recipe, sizes, d, F, precision, kind);
  Operands on(ctx);
  copy(ctx, trainer.workspace().x, on.random(DType::kF32, {batch, d}, 1 / std::sqrt(float(d))));
  trainer.start(ctx);
  int64_t done = 0;
  measure(state, ctx, [&] { trainer.step(ctx, done++); });
  const StepMetrics m = trainer.read_metrics(ctx, 1);
  if (kind == StepKind::kSparse && m.sparse_rows < m.rows) state.SkipWithError("the entries do not fit the lists");
  const double rows = double(batch) * double(state.iterations());
  state.counters["tok/s"] = benchmark::Counter(rows, benchmark::Counter::kIsRate);
  state.counters["L0"] = m.l0;
  state.counters["entries"] = m.entries;
  state.counters["rows gathered/s"] = benchmark::Counter(4 * m.entries * rows, benchmark::Counter::kIsRate);
  set_flop(state, ctx, (kind == StepKind::kDense ? 10.0 : 2.0) * double(batch) * double(d) * double(F), precision,
           tf32);
}

// On the CPU the batches of the wide ones are small, so that a run ends; 1M latents of width 2304 are for a GPU's
// memory.
void register_all() {
  const int64_t K = 1024;
  Shapes shapes;
  for (const int64_t F : {4 * K, 64 * K})
    for (const int64_t l0 : {16, 32, 64, 128, 256}) shapes.cpu.push_back({4096, 192, F, l0});
  shapes.cpu.push_back({4096, 192, 512 * K, 64});
  for (const int64_t F : {16 * K, 64 * K, 128 * K})
    for (const int64_t l0 : {32, 64, 128, 512}) shapes.cpu.push_back({512, 2304, F, l0});
  for (const int64_t F : {16 * K, 64 * K, 128 * K, 1024 * K})
    for (const int64_t l0 : {32, 64, 128, 512}) shapes.cuda.push_back({4096, 2304, F, l0});
  for (const auto& [name, kind] : {std::pair{"dense_step", StepKind::kDense}, {"sparse_step", StepKind::kSparse}}) {
    const auto add = [&, kind = kind](const char* suffix, DType t, bool tf32, const Shapes& s) {
      register_op(
          std::string(name) + suffix, [=](benchmark::State& b, Context& c) { step(b, c, t, tf32, kind); }, s);
    };
    add("/f32", DType::kF32, false, shapes);
    add("/bf16", DType::kBF16, false, shapes);
    add("/tf32", DType::kF32, true, {.cpu = {}, .cuda = shapes.cuda});
  }
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
