#include "bench/timer.h"
#include "kernels/add.h"
#include "kernels/add_bias.h"
#include "kernels/all_finite.h"
#include "kernels/convert.h"
#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/geglu.h"
#include "kernels/next_tokens.h"
#include "kernels/random_normal.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_residual.h"
#include "kernels/rope.h"

// The memory-bound ops of the forward pass, and what surrounds them: bytes moved per second, against the bandwidth of
// the device's memory (on the CPU, at the demo's shapes, of a cache).

namespace gsae::bench {

namespace {

// What an op moves in one run.
double bytes(std::initializer_list<Tensor> moved) {
  double sum = 0;
  for (const Tensor& t : moved) sum += double(t.bytes());
  return sum;
}

// Args: n, d, V.
void embedding(benchmark::State& state, Context& ctx) {
  const int64_t n = state.range(0), d = state.range(1), V = state.range(2);
  Operands on(ctx);
  const Tensor table = on.random(DType::kBF16, {V, d}), x = on.zeros(DType::kF32, {n, d}), tokens = on.tokens(n, V);
  measure(state, ctx, [&] { gsae::embedding(ctx, x, table, tokens, 48); });
  set_bytes(state, ctx, 1.5 * bytes({x}));
}

// Args: n, d.
void rms_norm(benchmark::State& state, Context& ctx, DType out_type) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), out = on.zeros(out_type, {n, d}), w = on.random(DType::kBF16, {d});
  measure(state, ctx, [&] { gsae::rms_norm(ctx, out, x, w, 1e-6f); });
  set_bytes(state, ctx, bytes({x, out}));
}

void rms_norm_residual(benchmark::State& state, Context& ctx, DType h_type) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d}), y = on.random(DType::kF32, {n, d}), h = on.zeros(h_type, {n, d}),
               w = on.random(DType::kBF16, {d});
  measure(state, ctx, [&] { gsae::rms_norm_residual(ctx, h, x, y, w, w, 1e-6f); });
  set_bytes(state, ctx, bytes({x, x, y, h}));
}

// Args: B, T, Hq, Hkv, dh.
void rope_split(benchmark::State& state, Context& ctx, DType dtype) {
  const int64_t B = state.range(0), T = state.range(1), Hq = state.range(2), Hkv = state.range(3), dh = state.range(4);
  Operands on(ctx);
  const Tensor qkv = on.random(dtype, {B * T, (Hq + 2 * Hkv) * dh}), table = on.zeros(DType::kF32, {T, 2, dh / 2}),
               q = on.zeros(dtype, {B, Hq, T, dh}), k = on.zeros(dtype, {B, Hkv, T, dh}),
               v = on.zeros(dtype, {B, Hkv, T, dh});
  gsae::rope_table(ctx, table, 10000);
  measure(state, ctx, [&] { gsae::rope_split(ctx, q, k, v, qkv, table); });
  set_bytes(state, ctx, bytes({qkv, qkv}));
}

// Args: T, dh. Runs once for a whole run: only that it is no delay.
void rope_table(benchmark::State& state, Context& ctx) {
  Operands on(ctx);
  const Tensor table = on.zeros(DType::kF32, {state.range(0), 2, state.range(1) / 2});
  measure(state, ctx, [&] { gsae::rope_table(ctx, table, 10000); });
  set_bytes(state, ctx, bytes({table}));
}

// Args: n, ffn.
void geglu(benchmark::State& state, Context& ctx, DType in, DType out_type) {
  const int64_t n = state.range(0), ffn = state.range(1);
  Operands on(ctx);
  const Tensor gate_up = on.random(in, {n, 2 * ffn}), out = on.zeros(out_type, {n, ffn});
  measure(state, ctx, [&] { gsae::geglu(ctx, out, gate_up); });
  set_bytes(state, ctx, bytes({gate_up, out}));
}

// Args: n, d.
void convert(benchmark::State& state, Context& ctx, DType from, DType to) {
  Operands on(ctx);
  const Tensor x = on.random(from, {state.range(0), state.range(1)}), out = on.zeros(to, {x.dim[0], x.dim[1]});
  measure(state, ctx, [&] { gsae::convert(ctx, out, x); });
  set_bytes(state, ctx, bytes({x, out}));
}

enum class Elementwise { kAdd, kAddBias, kSubtract, kMultiply, kFillZero };

// Args: n, d.
void elementwise(benchmark::State& state, Context& ctx, Elementwise which) {
  const int64_t n = state.range(0), d = state.range(1);
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {n, d});
  const bool two = which == Elementwise::kAdd || which == Elementwise::kSubtract;
  const Tensor y = on.random(DType::kF32, {two ? n : 1, d});
  measure(state, ctx, [&] {
    switch (which) {
      case Elementwise::kAdd: return gsae::add(ctx, x, y);
      case Elementwise::kAddBias: return gsae::add_bias(ctx, x, y.reshape({d}));
      case Elementwise::kSubtract: return gsae::subtract(ctx, x, y);
      case Elementwise::kMultiply: return gsae::multiply(ctx, x, -1);
      case Elementwise::kFillZero: return gsae::fill_zero(ctx, x);
    }
  });
  set_bytes(state, ctx, bytes({x}) * (two ? 3 : which == Elementwise::kFillZero ? 1 : 2));
}

// Args: n, d. Until the host knows.
void all_finite(benchmark::State& state, Context& ctx, DType dtype) {
  Operands on(ctx);
  const Tensor x = on.random(dtype, {state.range(0), state.range(1)});
  measure(state, ctx, [&] { benchmark::DoNotOptimize(gsae::all_finite(ctx, x)); });
  set_bytes(state, ctx, bytes({x}));
}

// Args: n, d.
void random_normal(benchmark::State& state, Context& ctx, DType dtype) {
  Operands on(ctx);
  const Tensor x = on.zeros(dtype, {state.range(0), state.range(1)});
  measure(state, ctx, [&] { gsae::random_normal(ctx, x, Random(1, Random::kInitModel), 1); });
  set_bytes(state, ctx, bytes({x}));
}

// Args: B, T.
void next_tokens(benchmark::State& state, Context& ctx) {
  const int64_t B = state.range(0), T = state.range(1);
  Operands on(ctx);
  const Tensor tokens = on.tokens(B * T, 256000).reshape({B, T}), targets = on.zeros(DType::kI32, {B, T});
  measure(state, ctx, [&] { gsae::next_tokens(ctx, targets, tokens); });
  set_bytes(state, ctx, bytes({tokens, targets}));
}

// The demo model's shapes and the 2B's; on a GPU 4096 tokens of the 2B, the 9B and the 27B.
void register_all() {
  using State = benchmark::State;
  const Shapes rows{.cpu = {{4096, 192}, {1024, 2304}}, .cuda = {{4096, 2304}, {4096, 3584}, {4096, 4608}}};
  const Shapes ffn{.cpu = {{4096, 768}, {1024, 9216}}, .cuda = {{4096, 9216}, {4096, 14336}, {4096, 36864}}};
  const Shapes latents{.cpu = {{512, 4096}}, .cuda = {{4096, 16384}}};
  const DType f32 = DType::kF32, bf16 = DType::kBF16;

  register_op("embedding", embedding,
              {.cpu = {{4096, 192, 4096}, {1024, 2304, 32768}}, .cuda = {{4096, 2304, 256000}, {4096, 3584, 256000}}});
  for (const DType t : {f32, bf16}) {
    const std::string suffix = std::string("/") + gsae::name(t);
    register_op(
        "rms_norm" + suffix, [t](State& s, Context& c) { rms_norm(s, c, t); }, rows);
    register_op(
        "rms_norm_residual" + suffix, [t](State& s, Context& c) { rms_norm_residual(s, c, t); }, rows);
    register_op("rope_split" + suffix, [t](State& s, Context& c) { rope_split(s, c, t); },
                {.cpu = {{16, 256, 4, 2, 64}, {1, 1024, 8, 4, 256}},
                 .cuda = {{4, 1024, 8, 4, 256}, {4, 1024, 16, 8, 256}, {4, 1024, 32, 16, 128}}});
    register_op(
        "geglu/f32" + suffix, [t, f32](State& s, Context& c) { geglu(s, c, f32, t); }, ffn);
    register_op("all_finite" + suffix, [t](State& s, Context& c) { all_finite(s, c, t); },
                {.cpu = {{4096, 2304}}, .cuda = {{36864, 2304}, {256000, 2304}}});
    register_op("random_normal" + suffix, [t](State& s, Context& c) { random_normal(s, c, t); },
                {.cpu = {{512, 2304}}, .cuda = {{36864, 2304}}});
  }
  register_op(
      "geglu/bf16/bf16", [bf16](State& s, Context& c) { geglu(s, c, bf16, bf16); }, ffn);
  register_op(
      "convert/f32/bf16", [=](State& s, Context& c) { convert(s, c, f32, bf16); }, rows);
  register_op(
      "convert/bf16/f32", [=](State& s, Context& c) { convert(s, c, bf16, f32); }, rows);
  register_op("rope_table", rope_table, {.cpu = {{1024, 256}}, .cuda = {{8192, 256}}});
  register_op("next_tokens", next_tokens, {.cpu = {{16, 256}}, .cuda = {{4, 1024}}});
  for (const auto& [name, which] : {std::pair{"add", Elementwise::kAdd},
                                    {"subtract", Elementwise::kSubtract},
                                    {"multiply", Elementwise::kMultiply},
                                    {"fill_zero", Elementwise::kFillZero}})
    register_op(
        name, [which = which](State& s, Context& c) { elementwise(s, c, which); }, rows);
  register_op(
      "add_bias", [](State& s, Context& c) { elementwise(s, c, Elementwise::kAddBias); }, latents);
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
