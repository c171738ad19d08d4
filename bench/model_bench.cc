#include <vector>

#include "bench/timer.h"
#include "kernels/embedding.h"
#include "kernels/geglu.h"
#include "kernels/memory.h"
#include "kernels/philox.h"
#include "kernels/rms_norm.h"
#include "kernels/rms_norm_residual.h"
#include "kernels/rope.h"

namespace gsae::bench {

namespace {

// A tensor of its own memory, with numbers in [-1, 1).
struct Filled {
  Filled(DType dtype, std::initializer_list<int64_t> shape) {
    Arena plan;
    tensor = plan.take("", dtype, shape);
    memory = Buffer(Device::kCpu, tensor.bytes());
    tensor.ptr = memory.data();
    for (int64_t i = 0; i < tensor.size(); ++i) {
      const float v = static_cast<float>(i * 7919 % 1024) / 512 - 1;
      if (dtype == DType::kF32) tensor.data<float>()[i] = v;
      else if (dtype == DType::kBF16) tensor.data<BF16>()[i] = to_bf16(v);
    }
  }
  operator Tensor() const { return tensor; }

  Tensor tensor;
  Buffer memory;
};

void set_bytes(benchmark::State& state, std::initializer_list<Tensor> moved) {
  size_t bytes = 0;
  for (const Tensor& t : moved) bytes += t.bytes();
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes));
}

}  // namespace

// Of the memory-bound ops: bytes moved per second, against the machine's memory (or, at the demo's
// shape, cache) bandwidth. Args: rows, then widths.
void embedding(benchmark::State& state) {
  const int64_t n = state.range(0), d = state.range(1), V = state.range(2);
  Context ctx(Device::kCpu);
  const Filled table(DType::kBF16, {V, d}), x(DType::kF32, {n, d});
  std::vector<int32_t> tokens(n);
  for (int64_t i = 0; i < n; ++i) tokens[i] = static_cast<int32_t>(Random(1, Random::kShuffleRows).below(V, i));
  measure(state, ctx, [&] { gsae::embedding(ctx, x, table, view(tokens.data(), {n}), 48); });
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(x.tensor.bytes() * 3 / 2));
}
BENCHMARK(embedding)->Args({4096, 192, 4096})->Args({1024, 2304, 32768})->UseManualTime();

void rms_norm(benchmark::State& state, DType out_type) {
  const int64_t n = state.range(0), d = state.range(1);
  Context ctx(Device::kCpu);
  const Filled x(DType::kF32, {n, d}), out(out_type, {n, d}), w(DType::kBF16, {d});
  measure(state, ctx, [&] { gsae::rms_norm(ctx, out, x, w, 1e-6f); });
  set_bytes(state, {x, out});
}
BENCHMARK_CAPTURE(rms_norm, f32, DType::kF32)->Args({4096, 192})->Args({1024, 2304})->UseManualTime();
BENCHMARK_CAPTURE(rms_norm, bf16, DType::kBF16)->Args({4096, 192})->Args({1024, 2304})->UseManualTime();

void rms_norm_residual(benchmark::State& state, DType h_type) {
  const int64_t n = state.range(0), d = state.range(1);
  Context ctx(Device::kCpu);
  const Filled x(DType::kF32, {n, d}), y(DType::kF32, {n, d}), h(h_type, {n, d}), w(DType::kBF16, {d});
  measure(state, ctx, [&] { gsae::rms_norm_residual(ctx, h, x, y, w, w, 1e-6f); });
  set_bytes(state, {x, x, y, h});
}
BENCHMARK_CAPTURE(rms_norm_residual, f32, DType::kF32)->Args({4096, 192})->Args({1024, 2304})->UseManualTime();
BENCHMARK_CAPTURE(rms_norm_residual, bf16, DType::kBF16)->Args({4096, 192})->Args({1024, 2304})->UseManualTime();

void rope_split(benchmark::State& state) {
  const int64_t B = state.range(0), T = state.range(1), Hq = state.range(2), Hkv = state.range(3), dh = state.range(4);
  Context ctx(Device::kCpu);
  const Filled qkv(DType::kF32, {B * T, (Hq + 2 * Hkv) * dh}), table(DType::kF32, {T, 2, dh / 2});
  const Filled q(DType::kF32, {B, Hq, T, dh}), k(DType::kF32, {B, Hkv, T, dh}), v(DType::kF32, {B, Hkv, T, dh});
  measure(state, ctx, [&] { gsae::rope_split(ctx, q, k, v, qkv, table); });
  set_bytes(state, {qkv, qkv});
}
BENCHMARK(rope_split)->Args({16, 256, 4, 2, 64})->Args({1, 1024, 8, 4, 256})->UseManualTime();

void geglu(benchmark::State& state, DType out_type) {
  const int64_t n = state.range(0), ffn = state.range(1);
  Context ctx(Device::kCpu);
  const Filled gate_up(DType::kF32, {n, 2 * ffn}), out(out_type, {n, ffn});
  measure(state, ctx, [&] { gsae::geglu(ctx, out, gate_up); });
  set_bytes(state, {gate_up, out});
}
BENCHMARK_CAPTURE(geglu, f32, DType::kF32)->Args({4096, 768})->Args({1024, 9216})->UseManualTime();
BENCHMARK_CAPTURE(geglu, bf16, DType::kBF16)->Args({4096, 768})->Args({1024, 9216})->UseManualTime();

}  // namespace gsae::bench

BENCHMARK_MAIN();
