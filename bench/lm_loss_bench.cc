#include "kernels/lm_loss.h"

#include "bench/timer.h"
#include "kernels/memory.h"
#include "kernels/softcap.h"

namespace gsae::bench {

// Args: n, d, V, rows, columns. FLOP/s of the product, to be read against the machine's peak in the dtype of h.
void lm_loss(benchmark::State& state, Device device, DType h_dtype, DType table_dtype) {
  if (!available(device)) return state.SkipWithError("no such device");
  const int64_t n = state.range(0), d = state.range(1), V = state.range(2);
  Context ctx(device);
  Tensor nll, h, table, targets, scratch;
  const auto lay_out = [&](Arena& arena) {
    nll = arena.take("nll", DType::kF32, {n});
    h = arena.take("h", h_dtype, {n, d});
    table = arena.take("table", table_dtype, {V, d});
    targets = arena.take("targets", DType::kI32, {n});
    scratch = arena.take("scratch", DType::kF32, {state.range(3), state.range(4)});
  };
  Arena plan;
  lay_out(plan);
  Buffer memory(device, plan.used());
  Arena arena(memory);
  lay_out(arena);
  if (device == Device::kCpu) std::fill_n(memory.data(), memory.size(), std::byte{0});

  measure(state, ctx, [&] { gsae::lm_loss(ctx, nll, h, table, targets, 30, scratch); });
  const double logits = static_cast<double>(n) * static_cast<double>(V * state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter(2 * logits * static_cast<double>(d), benchmark::Counter::kIsRate);
  state.counters["logit/s"] = benchmark::Counter(logits, benchmark::Counter::kIsRate);
}

// The demo model; the 2B with its bf16 table, in both precisions of the products.
BENCHMARK_CAPTURE(lm_loss, cpu_f32, Device::kCpu, DType::kF32, DType::kBF16)
    ->Args({4096, 192, 4096, 512, 1024})
    ->Args({256, 2304, 256000, 256, 4096})
    ->UseManualTime();
BENCHMARK_CAPTURE(lm_loss, cpu_bf16, Device::kCpu, DType::kBF16, DType::kBF16)
    ->Args({4096, 192, 4096, 512, 1024})
    ->Args({256, 2304, 256000, 256, 4096})
    ->UseManualTime();

// Args: elements.
void softcap(benchmark::State& state, Device device) {
  if (!available(device)) return state.SkipWithError("no such device");
  Context ctx(device);
  Buffer memory(device, state.range(0) * sizeof(float));
  Arena arena(memory);
  Tensor x = arena.take("x", DType::kF32, {state.range(0)});
  if (device == Device::kCpu) std::fill_n(x.data<float>(), x.size(), 1.0f);
  measure(state, ctx, [&] { gsae::softcap(ctx, x, 30); });
  state.SetBytesProcessed(state.iterations() * 2 * static_cast<int64_t>(x.bytes()));
}

BENCHMARK_CAPTURE(softcap, cpu, Device::kCpu)->Arg(1 << 24)->UseManualTime();

}  // namespace gsae::bench

BENCHMARK_MAIN();
