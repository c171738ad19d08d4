#include "tools/machine.h"

#include <omp.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/convert.h"
#include "kernels/matmul.h"
#include "kernels/memory.h"
#include "kernels/parallel.h"
#include "kernels/random_normal.h"
#include "kernels/timer.h"

namespace gsae {

namespace {

#ifdef __x86_64__
std::string cpu_name() {
  unsigned brand[12] = {};
  for (unsigned i = 0; i < 3; ++i)
    if (!__get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2], &brand[4 * i + 3]))
      return "x86-64";
  char text[sizeof brand + 1] = {};
  std::memcpy(text, brand, sizeof brand);
  std::string name(text);
  name.erase(0, name.find_first_not_of(' '));  // Intel pads on the left, AMD on the right
  name.erase(name.find_last_not_of(' ') + 1);
  return name;
}

std::string isa_name() {
  if (__builtin_cpu_supports("amx-bf16")) return "AMX BF16";
  if (__builtin_cpu_supports("avx512bf16")) return "AVX-512 BF16";
  if (__builtin_cpu_supports("avx512f")) return "AVX-512";
  if (__builtin_cpu_supports("avx2")) return "AVX2";
  return "baseline";
}
#else
std::string cpu_name() { return "unknown processor"; }
std::string isa_name() { return "baseline"; }
#endif

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

bool emulated(const Context& ctx) { return ctx.device() == Device::kCuda && cuda_backend() == CudaBackend::kEmulated; }

// The shortest of the runs that fit into `budget` seconds, of two at least: the first meets cold caches.
template <class F> double shortest(double budget, F&& run) {
  double best = 1e30;
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < 2 || seconds_since(start) < budget; ++i) {
    const Clock::time_point t = Clock::now();
    run();
    best = std::min(best, seconds_since(t));
  }
  return best;
}

double triad_bandwidth() {
  constexpr int64_t kElements = (int64_t{128} << 20) / sizeof(float), kGrain = 1 << 16;
  Arena plan;
  const auto lay = [](Arena& arena) {
    return std::array{arena.take("a", DType::kF32, {kElements}), arena.take("b", DType::kF32, {kElements}),
                      arena.take("c", DType::kF32, {kElements})};
  };
  lay(plan);
  const Buffer memory(Device::kCpu, plan.used());
  Arena arena(memory);
  const auto tensors = lay(arena);
  float *a = tensors[0].data<float>(), *b = tensors[1].data<float>(), *c = tensors[2].data<float>();
  // Written first by the thread that will use it: pages lie in that thread's memory node.
  parallel_for(kElements, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) a[i] = 0, b[i] = 1, c[i] = 2;
  });
  const double seconds = shortest(0.3, [&] {
    parallel_for(kElements, kGrain, [&](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) a[i] = b[i] + 3.0f * c[i];
    });
  });
  return 3.0 * sizeof(float) * double(kElements) / seconds;
}

}  // namespace

// Which square is the best depends on caches, on the number of threads and on the GPU.
double measure_product_peak(const Context& on, DType dtype, bool tf32) {
  if (emulated(on)) return std::numeric_limits<double>::infinity();
  const bool gpu = on.device() == Device::kCuda;
  const int64_t largest = gpu ? 8192 : 2048;
  Context ctx(on.device(), on.index());  // its own: what oneDNN keeps for these shapes goes with it
  const auto lay = [&](Arena& arena, int64_t n) {
    return std::array{arena.take("out", DType::kF32, {n, n}), arena.take("a", dtype, {n, n}),
                      arena.take("b", dtype, {n, n})};
  };
  Arena plan;
  lay(plan, largest);
  const Buffer memory(ctx.device(), plan.used());
  double peak = 0;
  for (int64_t n = gpu ? 2048 : 512; n <= largest; n *= 2) {
    Arena arena(memory);
    const auto [out, a, b] = lay(arena, n);
    // Numbers of many bits: zeros draw less power, and a processor runs faster on them than on any real work.
    random_normal(ctx, a, Random(n, Random::kInitModel, 0), 1);
    random_normal(ctx, b, Random(n, Random::kInitModel, 1), 1);
    const auto product = [&] { matmul(ctx, out, a, b, {.transpose_b = true, .tf32 = tf32}); };
    product();  // chooses its algorithm
    ctx.synchronize();
    double seconds = 1e30;
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < 2 || seconds_since(start) < 0.12; ++i)
      seconds = std::min(seconds, time_on_device(ctx, product));
    peak = std::max(peak, 2.0 * double(n) * double(n) * double(n) / seconds);
    if (8 * seconds > 0.5) break;  // slow enough that a larger one would say the same, and keep people waiting
  }
  return peak;
}

double measure_copy_bandwidth(const Context& on) {
  if (emulated(on)) return std::numeric_limits<double>::infinity();
  if (on.device() == Device::kCpu) return triad_bandwidth();
  Context ctx(on.device(), on.index());
  constexpr int64_t kElements = int64_t{1} << 28;  // 1 GiB, far beyond any cache
  const auto lay = [&](Arena& arena) {
    return std::array{arena.take("to", DType::kF32, {kElements}), arena.take("from", DType::kF32, {kElements})};
  };
  Arena plan;
  lay(plan);
  const Buffer memory(ctx.device(), plan.used());
  Arena arena(memory);
  const auto [to, from] = lay(arena);
  random_normal(ctx, from, Random(1, Random::kInitModel), 1);
  double seconds = 1e30;
  for (int i = 0; i < 8; ++i) seconds = std::min(seconds, time_on_device(ctx, [&] { convert(ctx, to, from); }));
  return 2.0 * sizeof(float) * double(kElements) / seconds;
}

Machine describe_machine() { return {cpu_name(), isa_name(), omp_get_num_procs(), system_memory()}; }

Peaks measure_cpu_peaks() {
  const Context ctx(Device::kCpu);
  return {.f32 = measure_product_peak(ctx, DType::kF32),
          .bf16 = measure_product_peak(ctx, DType::kBF16),
          .bandwidth = triad_bandwidth()};
}

}  // namespace gsae
