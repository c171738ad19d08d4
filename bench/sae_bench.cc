#include <cmath>
#include <utility>
#include <vector>

#include "bench/timer.h"
#include "kernels/adam.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "kernels/reconstruction.h"
#include "kernels/reconstruction_metrics.h"
#include "kernels/rows.h"
#include "kernels/sparsity.h"
#include "kernels/statistics.h"

// A training step of an SAE, op by op (step_bench has whole ones): the products against the device's peak, the other
// ops against the bandwidth of its memory (on the CPU, at the demo's shapes, of a cache).

namespace gsae::bench {

namespace {

constexpr double kActive = 1.0 / 128;  // of the latents: 128 of 16k
constexpr float kThreshold = 2.418f;   // so many of normally distributed pre-activations are above it

// What an op moves in one run.
double bytes(std::initializer_list<Tensor> moved) {
  double sum = 0;
  for (const Tensor& t : moved) sum += double(t.bytes());
  return sum;
}

void assign(Context& ctx, Tensor t, std::vector<float> values) {
  copy(ctx, t, view(values.data(), {t.size()}));
  ctx.synchronize();  // before the values go
}

Tensor filled(Context& ctx, Operands& on, int64_t n, float value) {
  const Tensor t = on.zeros(DType::kF32, {n});
  assign(ctx, t, std::vector<float>(static_cast<size_t>(n), value));
  return t;
}

enum class Product { kEncode, kDecode, kDf, kGradDecoder, kGradEncoder };

// Args: rows, width, latents. The step's five products, each 2 * rows * width * latents FLOP.
void product(benchmark::State& state, Context& ctx, Product which, DType type, bool tf32) {
  const int64_t n = state.range(0), d = state.range(1), F = state.range(2);
  Operands on(ctx);
  const auto run = [&](std::initializer_list<int64_t> out, std::initializer_list<int64_t> a,
                       std::initializer_list<int64_t> b, MatmulOptions options) {
    options.tf32 = tf32;
    const Tensor result = on.zeros(DType::kF32, out), left = on.random(type, a), right = on.random(type, b);
    measure(state, ctx, [&] { matmul(ctx, result, left, right, options); });
  };
  switch (which) {
    case Product::kEncode: run({n, F}, {n, d}, {d, F}, {.bias = on.random(DType::kF32, {F})}); break;
    case Product::kDecode: run({n, d}, {n, F}, {F, d}, {}); break;
    case Product::kDf: run({n, F}, {n, d}, {F, d}, {.transpose_b = true}); break;
    case Product::kGradDecoder: run({F, d}, {n, F}, {n, d}, {.transpose_a = true, .accumulate = true}); break;
    case Product::kGradEncoder: run({d, F}, {n, d}, {n, F}, {.transpose_a = true, .accumulate = true}); break;
  }
  set_flop(state, ctx, 2.0 * double(n) * double(d) * double(F), type, tf32);
}

// Args: rows, latents.
void jump_relu(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), F = state.range(1);
  Operands on(ctx);
  const Tensor z = on.random(DType::kF32, {n, F}), f = on.zeros(type, {n, F}), l0 = on.zeros(DType::kF32, {n}),
               theta = filled(ctx, on, F, kThreshold), fired = on.zeros(DType::kI32, {F});
  measure(state, ctx, [&] { gsae::jump_relu(ctx, f, z, theta, l0, fired); });
  set_bytes(state, ctx, bytes({z, f}));
}

void jump_relu_backward(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), F = state.range(1);
  Operands on(ctx);
  const Tensor z = on.random(DType::kF32, {n, F}), df = on.random(DType::kF32, {n, F}), dz = on.zeros(type, {n, F}),
               dbias = on.zeros(DType::kF32, {F}), dtheta = on.zeros(DType::kF32, {F}),
               theta = filled(ctx, on, F, kThreshold), dl0 = on.random(DType::kF32, {n});
  measure(state, ctx, [&] { gsae::jump_relu_backward(ctx, dz, dbias, dtheta, df, z, theta, dl0, 0.001f); });
  // cuda reads no more of df than the 32-byte sectors with an active latent
  const double read = ctx.device() == Device::kCuda ? 1 - std::pow(1 - kActive, 8) : 1;
  set_bytes(state, ctx, bytes({z, dz}) + read * bytes({df}));
}

// Args: rows, width.
void subtract_bias(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), bias = on.random(DType::kF32, {d}), out = on.zeros(type, {n, d});
  measure(state, ctx, [&] { gsae::subtract_bias(ctx, out, x, bias); });
  set_bytes(state, ctx, bytes({x, out}));
}

void reconstruction_error(benchmark::State& state, Context& ctx, DType type) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), x_hat = on.random(DType::kF32, {n, d}), dx = on.zeros(type, {n, d}),
               bias = on.zeros(DType::kF32, {d}), dbias = on.zeros(DType::kF32, {d}),
               error = on.zeros(DType::kF32, {n});
  measure(state, ctx, [&] { gsae::reconstruction_error(ctx, dx, error, dbias, x_hat, bias, x, 1e-3f); });
  set_bytes(state, ctx, bytes({x, x_hat, x_hat, dx}));
}

void reconstruction_metrics(benchmark::State& state, Context& ctx) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), x_hat = on.random(DType::kF32, {n, d}),
               centre = on.random(DType::kF32, {d}), metrics = on.zeros(DType::kF64, {n, kReconstructionMetrics});
  measure(state, ctx, [&] { gsae::reconstruction_metrics(ctx, metrics, x_hat, x, centre); });
  set_bytes(state, ctx, bytes({x, x_hat}));
}

void add_moments(benchmark::State& state, Context& ctx) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), sum = on.zeros(DType::kF64, {d}),
               square = on.zeros(DType::kF64, {1});
  measure(state, ctx, [&] { gsae::add_moments(ctx, sum, square, x); });
  set_bytes(state, ctx, bytes({x}));
}

// Args: rows, width of the parameters.
void adam(benchmark::State& state, Context& ctx, bool with_copy) {
  const int64_t F = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor p = on.random(DType::kF32, {F, d}, 1 / std::sqrt(float(d))), v = on.zeros(DType::kF32, {F, d}),
               g = on.random(DType::kF32, {F, d}, 1e-3f), rates = on.zeros(DType::kF32, {kRates});
  const Tensor narrow = with_copy ? on.zeros(DType::kBF16, {F, d}) : Tensor{};
  assign(ctx, rates, {7e-5f, 0.999f, 1, 1});
  measure(state, ctx, [&] { gsae::adam(ctx, p, v, g, narrow, rates, {}); });
  set_bytes(state, ctx, bytes({p, p, v, v, g}) + (with_copy ? double(narrow.bytes()) : 0));
}

// Args: rows, width, slots of the buffer. Over a table that no cache holds.
void move_rows(benchmark::State& state, Context& ctx, bool scatter, DType type) {
  const int64_t n = state.range(0), d = state.range(1), slots = state.range(2);
  Operands on(ctx);
  const Tensor table = on.zeros(type, {slots, d}), x = on.random(DType::kF32, {n, d}),
               index = on.zeros(DType::kI32, {n});
  std::vector<int32_t> at(static_cast<size_t>(n));
  for (int64_t r = 0; r < n; ++r) at[r] = static_cast<int32_t>(r * 7919 % slots);  // no slot twice
  copy(ctx, index, view(at.data(), {n}));
  ctx.synchronize();
  measure(state, ctx, [&] {
    if (scatter) gsae::scatter_rows(ctx, table, x, index);
    else gsae::gather_rows(ctx, x, table, index, 0.5f);
  });
  set_bytes(state, ctx, double(n) * double(d) * double(sizeof(float) + size_of(type)));
}

// Args: latents. After every step.
void update_idle(benchmark::State& state, Context& ctx) {
  const int64_t F = state.range(0);
  Operands on(ctx);
  const Tensor idle = on.zeros(DType::kI64, {F}), total = on.zeros(DType::kI64, {F}),
               fired = on.zeros(DType::kI32, {F});
  measure(state, ctx, [&] { gsae::update_idle(ctx, idle, total, fired, 4096); });
  set_bytes(state, ctx, 2 * bytes({idle, total, fired}));
}

void summarise_latents(benchmark::State& state, Context& ctx) {
  const int64_t F = state.range(0);
  Operands on(ctx);
  const Tensor out = on.zeros(DType::kF64, {kLatentStatistics}), idle = on.zeros(DType::kI64, {F}),
               theta = on.random(DType::kF32, {F});
  measure(state, ctx, [&] { gsae::summarise_latents(ctx, out, idle, theta, 1000); });
  set_bytes(state, ctx, bytes({idle, theta}));
}

// Args: rows. What a step does with a number for each row: only that it is no delay.
void per_row(benchmark::State& state, Context& ctx) {
  const int64_t n = state.range(0);
  Operands on(ctx);
  const Tensor l0 = filled(ctx, on, n, 80), dl0 = on.zeros(DType::kF32, {n}), penalty = on.zeros(DType::kF32, {n}),
               control = on.zeros(DType::kF32, {kControls}), total = on.zeros(DType::kF64, {1});
  assign(ctx, control, {1e-3f, 1, 1e-3f, 80, 1});
  measure(state, ctx, [&] {
    sparsity_penalty(ctx, dl0, penalty, l0, control, true, n);
    control_sparsity(ctx, control, l0, penalty, {.integral = 1e-3f, .proportional = 1});
    add_sum(ctx, total, l0);
  });
  set_bytes(state, ctx, bytes({l0, dl0, penalty, l0, l0}));
}

// The demo's SAE (4k latents on width 192), 16k latents on the 2B, and on a GPU what 1M latents change. On the CPU in
// tiles of 512 rows, as it trains.
void register_all() {
  using State = benchmark::State;
  const int64_t M = 1 << 20;
  const Shapes products{.cpu = {{512, 192, 4096}, {512, 2304, 16384}},
                        .cuda = {{4096, 192, 4096}, {4096, 2304, 16384}}};
  const Shapes latents{.cpu = {{512, 4096}, {512, 16384}}, .cuda = {{4096, 4096}, {4096, 16384}, {1024, M}}};
  const Shapes rows{.cpu = {{4096, 192}, {4096, 2304}}, .cuda = {{4096, 192}, {4096, 2304}, {4096, 4608}}};
  const Shapes parameters{.cpu = {{4096, 192}, {16384, 2304}}, .cuda = {{4096, 192}, {16384, 2304}, {16384, 4608}}};
  const Shapes slots{.cpu = {{4096, 192, 262139}, {4096, 2304, 65521}},
                     .cuda = {{4096, 192, 1000003}, {4096, 2304, 1000003}}};
  const Shapes each_latent{.cpu = {{16384}, {M}}, .cuda = {{16384}, {M}}};
  const auto precision = [&](const std::string& suffix, DType t, bool tf32, auto&& only) {
    for (const auto& [name, which] : {std::pair{"encode", Product::kEncode},
                                      {"decode", Product::kDecode},
                                      {"df", Product::kDf},
                                      {"grad_W_dec", Product::kGradDecoder},
                                      {"grad_W_enc", Product::kGradEncoder}})
      register_op(
          std::string("product_") + name + suffix,
          [=, which = which](State& s, Context& c) { product(s, c, which, t, tf32); }, only(products));
  };
  const auto everywhere = [](Shapes s) { return s; };
  precision("/f32", DType::kF32, false, everywhere);
  precision("/bf16", DType::kBF16, false, everywhere);
  precision("/tf32", DType::kF32, true, [](Shapes s) { return Shapes{.cpu = {}, .cuda = s.cuda}; });

  for (const DType t : {DType::kF32, DType::kBF16}) {
    const std::string suffix = std::string("/") + gsae::name(t);
    const bool narrow = t == DType::kBF16;
    register_op(
        "jump_relu" + suffix, [=](State& s, Context& c) { jump_relu(s, c, t); }, latents);
    register_op(
        "jump_relu_backward" + suffix, [=](State& s, Context& c) { jump_relu_backward(s, c, t); }, latents);
    register_op(
        "subtract_bias" + suffix, [=](State& s, Context& c) { subtract_bias(s, c, t); }, rows);
    register_op(
        "reconstruction_error" + suffix, [=](State& s, Context& c) { reconstruction_error(s, c, t); }, rows);
    register_op(
        "adam" + suffix, [=](State& s, Context& c) { adam(s, c, narrow); }, parameters);
    register_op(
        "scatter_rows" + suffix, [=](State& s, Context& c) { move_rows(s, c, true, t); }, slots);
    register_op(
        "gather_rows" + suffix, [=](State& s, Context& c) { move_rows(s, c, false, t); }, slots);
  }
  register_op("reconstruction_metrics", reconstruction_metrics, rows);
  register_op("add_moments", add_moments, rows);
  register_op("update_idle", update_idle, each_latent);
  register_op("summarise_latents", summarise_latents, each_latent);
  register_op("per_row", per_row, {.cpu = {{4096}}, .cuda = {{4096}}});
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
