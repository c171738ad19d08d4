#include "kernels/attention.h"

#include "bench/timer.h"
#include "kernels/memory.h"

namespace gsae::bench {

// Args: B, Hq, Hkv, T, dh, window. GFLOP/s of the scores that the mask lets through, to be read against the machine's
// f32 peak; exp: how many of them, per second, each with its exp and its tanh.
void attention(benchmark::State& state, Device device) {
  if (!available(device)) return state.SkipWithError("no such device");
  const int64_t B = state.range(0), heads = state.range(1), kv_heads = state.range(2), T = state.range(3),
                size = state.range(4), window = state.range(5);
  Context ctx(device);
  Arena plan;
  Buffer memory;
  Tensor q, k, v, out;
  const auto lay_out = [&](Arena& arena) {
    q = arena.take("q", DType::kF32, {B, heads, T, size});
    k = arena.take("k", DType::kF32, {B, kv_heads, T, size});
    v = arena.take("v", DType::kF32, {B, kv_heads, T, size});
    out = arena.take("out", DType::kF32, {B * T, heads * size});
  };
  lay_out(plan);
  memory = Buffer(device, plan.used());
  Arena arena(memory);
  lay_out(arena);
  if (device == Device::kCpu) {
    for (const Tensor& t : {q, k, v})
      for (int64_t i = 0; i < t.size(); ++i) t.data<float>()[i] = static_cast<float>(i * 7919 % 1024) / 512 - 1;
  }

  const AttentionOptions options{.scale = 0.1f, .softcap = 50, .window = window};
  measure(state, ctx, [&] { gsae::attention(ctx, out, q, k, v, options); });

  double pairs = 0;
  for (int64_t i = 0; i < T; ++i) pairs += static_cast<double>(window ? std::min(i + 1, window) : i + 1);
  pairs *= static_cast<double>(B * heads * state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter(4 * pairs * static_cast<double>(size), benchmark::Counter::kIsRate);
  state.counters["exp/s"] = benchmark::Counter(pairs, benchmark::Counter::kIsRate);
}

// The demo model's full and sliding layers; the 2B's sliding and full layers on one context of 1024, and of 8192.
BENCHMARK_CAPTURE(attention, cpu_f32, Device::kCpu)
    ->Args({16, 4, 2, 256, 64, 0})
    ->Args({16, 4, 2, 256, 64, 64})
    ->Args({1, 8, 4, 1024, 256, 4096})
    ->Args({1, 8, 4, 1024, 256, 0})
    ->Args({1, 8, 4, 8192, 256, 4096})
    ->UseManualTime();

}  // namespace gsae::bench

BENCHMARK_MAIN();
