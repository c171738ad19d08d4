#include "kernels/attention.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <map>

#include "kernels/matmul.h"
#include "kernels/memory.h"
#include "kernels/random_normal.h"
#include "kernels/timer.h"

namespace gsae::bench {
namespace {

// On a GPU several at once, so that what it costs to start one does not count.
double seconds(Context& ctx, const std::function<void()>& op) {
  const int times = ctx.device() == Device::kCuda ? 8 : 1;
  return time_on_device(ctx,
                        [&] {
                          for (int i = 0; i < times; ++i) op();
                        }) /
         times;
}

// What the device reaches where nothing else is in the way: a large matrix product of operands of that dtype, and a
// copy. Measured once.
struct Peaks {
  double flops = 0, bytes = 0;  // a second
};
const Peaks& peaks(Context& ctx, DType dtype) {
  static std::map<std::pair<Device, DType>, Peaks> known;
  Peaks& p = known[{ctx.device(), dtype}];
  if (p.flops > 0) return p;
  const int64_t n = ctx.device() == Device::kCuda ? 8192 : 2048;
  Tensor a, b, c;
  const auto lay_out = [&](Arena& arena) {
    a = arena.take("a", dtype, {n, n}), b = arena.take("b", dtype, {n, n}), c = arena.take("c", DType::kF32, {n, n});
  };
  Arena plan;
  lay_out(plan);
  const Buffer memory(ctx.device(), plan.used()), other(ctx.device(), plan.used());
  Arena arena(memory);
  lay_out(arena);
  for (const Tensor& t : {a, b}) random_normal(ctx, t, Random(1, Random::kSampleRows), 1);
  const auto whole = [&](const Buffer& m) {
    return Tensor{.ptr = m.data(),
                  .dtype = DType::kF32,
                  .device = ctx.device(),
                  .rank = 1,
                  .dim = {static_cast<int64_t>(m.size() / 4)}};
  };
  double product = 1e9, moved = 1e9;
  for (int i = 0; i < 4; ++i) {  // the first warms up
    product = std::min(product, seconds(ctx, [&] { matmul(ctx, c, a, b); }));
    moved = std::min(moved, seconds(ctx, [&] { copy(ctx, whole(other), whole(memory)); }));
  }
  p = {.flops = 2.0 * double(n) * double(n) * double(n) / product, .bytes = 2.0 * double(memory.size()) / moved};
  return p;
}

}  // namespace

// Args: B, Hq, Hkv, T, dh, window. FLOP/s of the scores that the mask lets through; of_bound: the time that the
// device's matrix products would take for them, or its copies for the operands if that is longer, as a part of the time
// taken; exp/s: scores, each with its exp and its tanh.
void attention(benchmark::State& state, Device device, DType dtype) {
  const int64_t B = state.range(0), heads = state.range(1), kv_heads = state.range(2), T = state.range(3),
                size = state.range(4), window = state.range(5);
  Context ctx(device);
  const Peaks& peak = peaks(ctx, dtype);
  Tensor q, k, v, out;
  const auto lay_out = [&](Arena& arena) {
    q = arena.take("q", dtype, {B, heads, T, size});
    k = arena.take("k", dtype, {B, kv_heads, T, size});
    v = arena.take("v", dtype, {B, kv_heads, T, size});
    out = arena.take("out", dtype, {B * T, heads * size});
  };
  Arena plan;
  lay_out(plan);
  const Buffer memory(device, plan.used());
  Arena arena(memory);
  lay_out(arena);
  for (const Tensor& t : {q, k, v}) random_normal(ctx, t, Random(2, Random::kSampleRows), 1);

  const AttentionOptions options{.scale = 0.1f, .softcap = 50, .window = window};
  double time = 0;
  for (auto _ : state) {
    const double t = seconds(ctx, [&] { gsae::attention(ctx, out, q, k, v, options); });
    state.SetIterationTime(t);
    time += t;
  }

  double pairs = 0;
  for (int64_t i = 0; i < T; ++i) pairs += static_cast<double>(window ? std::min(i + 1, window) : i + 1);
  pairs *= static_cast<double>(B * heads);
  const double flop = 4 * pairs * static_cast<double>(size);
  const double bytes = static_cast<double>(q.bytes() + k.bytes() + v.bytes() + out.bytes());
  const double runs = static_cast<double>(state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter(flop * runs, benchmark::Counter::kIsRate);
  state.counters["exp/s"] = benchmark::Counter(pairs * runs, benchmark::Counter::kIsRate);
  state.counters["of_bound"] = std::max(flop / peak.flops, bytes / peak.bytes) * runs / time;
}

// The demo model's full and sliding layers; the 2B's sliding and full layers on one context of 1024, and of 8192.
void contexts(benchmark::internal::Benchmark* b) {
  b->Args({16, 4, 2, 256, 64, 0})
      ->Args({16, 4, 2, 256, 64, 64})
      ->Args({1, 8, 4, 1024, 256, 4096})
      ->Args({1, 8, 4, 1024, 256, 0})
      ->Args({1, 8, 4, 8192, 256, 4096})
      ->UseManualTime();
}
// A GPU's batches: the 2B's, 9B's and 27B's layers on 8 contexts of 1024, the 2B's and 27B's on one of 8192.
void batches(benchmark::internal::Benchmark* b) {
  contexts(b);
  b->Args({8, 8, 4, 1024, 256, 4096})
      ->Args({8, 16, 8, 1024, 256, 4096})
      ->Args({8, 32, 16, 1024, 128, 4096})
      ->Args({1, 32, 16, 8192, 128, 4096})
      ->Args({1, 8, 4, 8192, 256, 0});
}

const bool registered = [] {
  for (const Device device : {Device::kCpu, Device::kCuda})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      if (!available(device)) continue;
      const std::string title = std::string("attention/") + name(device) + "_" + name(dtype);
      benchmark::RegisterBenchmark(title.c_str(), attention, device, dtype)
          ->Apply(device == Device::kCuda ? batches : contexts);
    }
  return true;
}();

}  // namespace gsae::bench

BENCHMARK_MAIN();
