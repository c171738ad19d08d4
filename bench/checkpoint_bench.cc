#include <fmt/format.h>

#include <chrono>
#include <filesystem>

#include "bench/timer.h"
#include "sae/sae_state.h"
#include "tools/checkpoint.h"
#include "tools/lay_out.h"

// What a checkpoint costs a run: the time that the step waits while its tensors are handed to the system, and the time
// until they are on the disk, which passes beside the training. Below the current folder: run it on the disk that runs
// are written to.

namespace gsae::bench {

namespace {

namespace fs = std::filesystem;

double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Args: width, latents, rows of the buffer that are saved (0: --checkpoint-buffer none). One SAE, bf16 rows.
void checkpoint(benchmark::State& state, Context& ctx) {
  constexpr double kEvery = 600;  // seconds: the default
  const int64_t d = state.range(0), F = state.range(1), rows = state.range(2);
  Buffer memory;
  const auto sae = allocate<SaeState>(ctx.device(), memory, d, F, DType::kBF16);
  commit(memory);
  Operands on(ctx);
  NamedTensors tensors;
  int64_t bytes = 0;
  for (const auto& [name, t] : sae->persistent()) tensors.emplace_back(name, t);
  if (rows > 0) tensors.emplace_back("buffer/res.20", on.zeros(DType::kBF16, {rows, d}));
  for (const auto& [name, t] : tensors) bytes += static_cast<int64_t>(t.bytes());
  const std::string folder = fs::absolute(fmt::format("checkpoint_bench.{}.tmp", getpid())).string();
  double whole = 0, read = 0;
  {
    CheckpointWriter writer(folder, 1);
    int64_t step = 0;
    for (auto _ : state) {
      const std::string name = checkpoint_name(1, 1, ++step);
      std::string error;
      double waits = 0;
      whole += seconds_of([&] {
        waits = seconds_of([&] { writer.write(ctx, name, tensors, {}); });
        error = writer.wait();
      });
      state.SetIterationTime(waits);
      if (!error.empty()) return state.SkipWithError(error.c_str());
      read += seconds_of([&] { Checkpoint(folder + "/" + name).load(ctx, tensors[0].first, tensors[0].second); });
      state.counters["% of the run"] = 100 * waits / (kEvery + waits);
    }
  }
  fs::remove_all(folder);
  const auto times = double(state.iterations());
  state.counters["GB"] = double(bytes) / 1e9;
  state.counters["GB/s"] = benchmark::Counter(double(bytes) / 1e9 * times, benchmark::Counter::kIsRate);
  state.counters["s on disk"] = whole / times;
  state.counters["s to check"] = read / times;
}

void register_all() {
  const std::vector<std::vector<int64_t>> shapes{
      {192, 4096, 125'000}, {2304, 16384, 0}, {2304, 16384, 100'000}, {2304, 16384, 1'000'000}};
  register_op("checkpoint", checkpoint, {.cpu = shapes, .cuda = shapes});
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
