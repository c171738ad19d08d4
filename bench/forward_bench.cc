#include <unistd.h>

#include <filesystem>

#include "bench/random_model.h"
#include "bench/timer.h"
#include "io/hub.h"
#include "model/gemma2.h"

namespace gsae::bench {

// Tokens per second through the layers 0 .. layer. FLOP/s counts their matrix products, to be read against the peaks
// that `gemma_sae doctor` measures.
void run_forward(benchmark::State& state, const std::string& dir, DType compute, int64_t layer, int64_t B, int64_t T) {
  Context ctx(Device::kCpu);
  const Gemma2 gemma(ctx, dir, compute);
  const GemmaConfig& c = gemma.config();
  Arena plan;
  Gemma2::Activations(plan, gemma, B, T);
  const Buffer memory(ctx.device(), plan.used());
  Arena arena(memory);
  Gemma2::Activations activations(arena, gemma, B, T);
  std::vector<int32_t> ids(size_t(B * T));
  for (int64_t i = 0; i < B * T; ++i) ids[i] = i % T == 0 ? c.bos : int32_t(3 + i * 7919 % (c.vocab - 3));
  const Hook hook{Site::kRes, layer, false, [](Context&, Tensor rows) { benchmark::DoNotOptimize(rows.ptr); }};
  const auto run = [&] { gemma.forward(ctx, activations, view(ids.data(), {B, T}), {&hook, 1}); };
  run();  // reads the mapped weights, checks them, compiles the products
  measure(state, ctx, run);

  const double weights = double(c.width) * double(c.head_width * (2 * c.heads + 2 * c.kv_heads) + 3 * c.ffn);
  const double tokens = double(B * T) * double(state.iterations());
  state.SetItemsProcessed(B * T * state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter(2 * weights * double(layer + 1) * tokens, benchmark::Counter::kIsRate);
}

void forward_demo(benchmark::State& state, DType compute) {
  run_forward(state, demo_folder() + "/model", compute, 3, 16, 256);
}
BENCHMARK_CAPTURE(forward_demo, f32, DType::kF32)->UseManualTime();
BENCHMARK_CAPTURE(forward_demo, bf16, DType::kBF16)->UseManualTime();

// One layer of 2B's shape, with a small vocabulary: the layer does not see it.
void forward_2b_layer(benchmark::State& state, DType compute) {
  GemmaConfig shape = named_shape("2b");
  shape.vocab = 1024, shape.layers = 1, shape.sliding.resize(1);
  std::string dir = (std::filesystem::temp_directory_path() / "gsae_bench_XXXXXX").string();
  if (!mkdtemp(dir.data())) return state.SkipWithError("cannot make a folder for the checkpoint");
  try {
    write_random_model({.shape = shape, .out = dir});
    run_forward(state, dir, compute, 0, 1, 1024);
  } catch (const Error& e) {
    state.SkipWithError(e.what());
  }
  std::filesystem::remove_all(dir);
}
BENCHMARK_CAPTURE(forward_2b_layer, f32, DType::kF32)->UseManualTime();
BENCHMARK_CAPTURE(forward_2b_layer, bf16, DType::kBF16)->UseManualTime();

}  // namespace gsae::bench

BENCHMARK_MAIN();
