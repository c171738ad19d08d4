#include <cmath>
#include <cstring>
#include <memory>
#include <string>

#include "bench/timer.h"
#include "kernels/adam.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/philox.h"
#include "kernels/reconstruction.h"
#include "kernels/rows.h"
#include "kernels/statistics.h"
#include "sae/sae_trainer.h"

namespace gsae::bench {

namespace {

// The operands of a training step, as the trainer holds them: an SAE of `latents` latents with about 1 in 128 active.
struct Step {
  static constexpr int64_t kTile = 512;

  Context ctx{Device::kCpu};
  Recipe recipe;
  Buffer memory;
  std::unique_ptr<SaeTrainer> trainer;

  Step(int64_t batch, int64_t width, int64_t latents, DType precision) {
    recipe.batch = batch;
    recipe.steps = 1 << 30;
    recipe.lambda = 1e-3;
    recipe.start = Recipe::Start::kData;
    recipe.start_l0 = double(latents) / 128;
    Arena plan;
    SaeTrainer(plan, recipe, kTile, width, latents, precision);
    memory = Buffer(Device::kCpu, plan.used());
    Arena arena(memory);
    trainer = std::make_unique<SaeTrainer>(arena, recipe, kTile, width, latents, precision);
    const Random random(1, Random::kSampleRows);
    float* x = w().x.data<float>();
    for (int64_t i = 0; i < batch * width; ++i)
      x[i] = (2 * random.uniform(static_cast<uint64_t>(i)) - 1) * std::sqrt(3.0f / float(width));
    trainer->start(ctx);
    trainer->step(ctx, 0);  // compiles the products, touches every page
  }
  SaeState& s() { return trainer->state(); }
  DenseWorkspace& w() { return trainer->workspace(); }
  Tensor W_enc() { return s().W_enc16 ? s().W_enc16 : s().p.W_enc; }
  Tensor W_dec() { return s().W_dec16 ? s().W_dec16 : s().p.W_dec; }
};

// One at a time: the 2B's holds 2 GB.
Step& step_of(int64_t batch, int64_t width, int64_t latents, DType precision) {
  static std::unique_ptr<Step> held;
  if (!held || held->recipe.batch != batch || held->s().p.width() != width || held->s().p.latents() != latents ||
      held->s().precision() != precision) {
    held.reset();
    held = std::make_unique<Step>(batch, width, latents, precision);
  }
  return *held;
}

void set_bytes(benchmark::State& state, std::initializer_list<Tensor> moved) {
  size_t bytes = 0;
  for (const Tensor& t : moved) bytes += t ? t.bytes() : 0;
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes));
}

enum class Product { kEncode, kDecode, kDf, kGradDecoder, kGradEncoder };

}  // namespace

// Args everywhere: batch, width, latents. A tile of 512 rows but where the op runs once a step.

// The step's five products, each 2 * tile * d * F FLOP, against the machine's peak in that precision.
void product(benchmark::State& state, Product which, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  DenseWorkspace& w = step.w();
  measure(state, step.ctx, [&] {
    switch (which) {
      case Product::kEncode: return matmul(step.ctx, w.z, w.centred, step.W_enc(), {.bias = step.s().p.b_enc});
      case Product::kDecode: return matmul(step.ctx, w.x_hat, w.f, step.W_dec());
      case Product::kDf: return matmul(step.ctx, w.df, w.dx, step.W_dec(), {.transpose_b = true});
      case Product::kGradDecoder:
        return matmul(step.ctx, w.grad.W_dec, w.f, w.dx, {.transpose_a = true, .accumulate = true});
      case Product::kGradEncoder:
        return matmul(step.ctx, w.grad.W_enc, w.centred, w.dz, {.transpose_a = true, .accumulate = true});
    }
  });
  state.counters["FLOP/s"] = benchmark::Counter(
      2 * double(w.z.size()) * double(step.s().p.width()) * double(state.iterations()), benchmark::Counter::kIsRate);
}

void jump_relu(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  DenseWorkspace& w = step.w();
  const SaeParameters& p = step.s().p;
  measure(state, step.ctx,
          [&] { gsae::jump_relu(step.ctx, w.f, w.z, p.threshold, w.l0.rows(0, w.z.dim[0]), step.s().fired); });
  set_bytes(state, {w.z, w.f});
}

void jump_relu_backward(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  DenseWorkspace& w = step.w();
  measure(state, step.ctx, [&] {
    gsae::jump_relu_backward(step.ctx, w.dz, w.grad.b_enc, w.grad.threshold, w.df, w.z, step.s().p.threshold,
                             w.dl0.rows(0, w.z.dim[0]), 0.001f);
  });
  set_bytes(state, {w.z, w.df, w.dz});
}

void reconstruction_error(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  DenseWorkspace& w = step.w();
  const int64_t n = w.z.dim[0];
  measure(state, step.ctx, [&] {
    gsae::reconstruction_error(step.ctx, w.dx, w.error.rows(0, n), w.grad.b_dec, w.x_hat, step.s().p.b_dec,
                               w.x.rows(0, n), 1e-3f);
  });
  set_bytes(state, {w.x_hat, w.x_hat, w.dx, w.x.rows(0, n)});
}

void adam(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  SaeState& s = step.s();
  const Tensor g = step.w().grad.W_enc;
  measure(state, step.ctx, [&] { gsae::adam(step.ctx, s.p.W_enc, s.second_moment.W_enc, g, s.W_enc16, s.rates, {}); });
  set_bytes(state, {g, g, g, g, g, s.W_enc16});
}

void adam_unit_rows(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  SaeState& s = step.s();
  const Tensor g = step.w().grad.W_dec;
  measure(state, step.ctx,
          [&] { gsae::adam_unit_rows(step.ctx, s.p.W_dec, s.second_moment.W_dec, g, s.W_dec16, s.rates, {}); });
  set_bytes(state, {g, g, g, g, g, s.W_dec16});
}

void add_moments(benchmark::State& state) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), DType::kF32);
  SaeState& s = step.s();
  measure(state, step.ctx, [&] { gsae::add_moments(step.ctx, s.sum_x, s.sum_x2, step.w().x); });
  set_bytes(state, {step.w().x});
}

// Args: rows, width, slots of the buffer. Scattered over a table that no cache holds.
void move_rows(benchmark::State& state, bool scatter, DType dtype) {
  const int64_t n = state.range(0), d = state.range(1), slots = state.range(2);
  Context ctx(Device::kCpu);
  Arena plan;
  Buffer memory;
  Tensor table, x, index;
  const auto lay_out = [&](Arena& arena) {
    table = arena.take("table", dtype, {slots, d});
    x = arena.take("x", DType::kF32, {n, d});
    index = arena.take("index", DType::kI32, {n});
  };
  lay_out(plan);
  memory = Buffer(Device::kCpu, plan.used());
  Arena arena(memory);
  lay_out(arena);
  std::memset(memory.data(), 0, memory.size());
  for (int64_t r = 0; r < n; ++r) index.data<int32_t>()[r] = static_cast<int32_t>(r * 7919 % slots);  // no slot twice
  measure(state, ctx, [&] {
    if (scatter) scatter_rows(ctx, table, x, index);
    else gather_rows(ctx, x, table, index, 0.5f);
  });
  state.SetBytesProcessed(state.iterations() * n * d * static_cast<int64_t>(sizeof(float) + size_of(dtype)));
}

// Everything: tokens per second of training, without the model that makes the activations.
void dense_step(benchmark::State& state, DType precision) {
  Step& step = step_of(state.range(0), state.range(1), state.range(2), precision);
  int64_t s = 0;
  measure(state, step.ctx, [&] { step.trainer->step(step.ctx, ++s); });
  const double rows = double(state.range(0)) * double(state.iterations());
  state.counters["tok/s"] = benchmark::Counter(rows, benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] =
      benchmark::Counter(10 * rows * double(state.range(1)) * double(state.range(2)), benchmark::Counter::kIsRate);
}

// The demo's SAE (width 4k on d 192), and 16k latents on the 2B.
void register_shape(int64_t batch, int64_t width, int64_t latents) {
  const auto add = [&](const std::string& name, auto&& function) {
    benchmark::RegisterBenchmark(name.c_str(), function)
        ->Args({batch, width, latents})
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  };
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const std::string suffix = std::string("/") + gsae::name(t);
    const std::pair<const char*, Product> products[] = {{"encode", Product::kEncode},
                                                        {"decode", Product::kDecode},
                                                        {"df", Product::kDf},
                                                        {"grad_W_dec", Product::kGradDecoder},
                                                        {"grad_W_enc", Product::kGradEncoder}};
    for (const auto& [name, which] : products)
      add("product_" + (name + suffix), [which = which, t](benchmark::State& s) { product(s, which, t); });
    add("jump_relu" + suffix, [t](benchmark::State& s) { jump_relu(s, t); });
    add("jump_relu_backward" + suffix, [t](benchmark::State& s) { jump_relu_backward(s, t); });
    add("reconstruction_error" + suffix, [t](benchmark::State& s) { reconstruction_error(s, t); });
    add("adam" + suffix, [t](benchmark::State& s) { adam(s, t); });
    add("adam_unit_rows" + suffix, [t](benchmark::State& s) { adam_unit_rows(s, t); });
    add("dense_step" + suffix, [t](benchmark::State& s) { dense_step(s, t); });
  }
  add("add_moments", [](benchmark::State& s) { add_moments(s); });
}

BENCHMARK_CAPTURE(move_rows, scatter_f32, true, DType::kF32)
    ->Args({4096, 192, 262139})
    ->Args({4096, 2304, 65521})
    ->UseManualTime();
BENCHMARK_CAPTURE(move_rows, gather_f32, false, DType::kF32)
    ->Args({4096, 192, 262139})
    ->Args({4096, 2304, 65521})
    ->UseManualTime();
BENCHMARK_CAPTURE(move_rows, scatter_bf16, true, DType::kBF16)
    ->Args({4096, 192, 262139})
    ->Args({4096, 2304, 65521})
    ->UseManualTime();
BENCHMARK_CAPTURE(move_rows, gather_bf16, false, DType::kBF16)
    ->Args({4096, 192, 262139})
    ->Args({4096, 2304, 65521})
    ->UseManualTime();

}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_shape(4096, 192, 4096);
  gsae::bench::register_shape(512, 2304, 16384);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
