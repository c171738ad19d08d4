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

#include "kernels/bf16.h"
#include "kernels/dispatch_float.h"
#include "kernels/matmul.h"
#include "kernels/memory.h"
#include "kernels/parallel.h"

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

// Which square is the best depends on caches and on the number of threads.
double measure_product_peak(DType dtype) {
  constexpr int64_t kLargest = 2048;
  Context ctx(Device::kCpu);  // its own: what oneDNN keeps for these shapes goes with it
  const auto lay = [&](Arena& arena, int64_t n) {
    return std::array{arena.take("out", DType::kF32, {n, n}), arena.take("a", dtype, {n, n}),
                      arena.take("b", dtype, {n, n})};
  };
  Arena plan;
  lay(plan, kLargest);
  const Buffer memory(Device::kCpu, plan.used());
  double peak = 0;
  for (int64_t n = 512; n <= kLargest; n *= 2) {
    Arena arena(memory);
    const auto [out, a, b] = lay(arena, n);
    // Numbers of many bits: zeros draw less power, and a processor runs faster on them than on any real work.
    for (const Tensor& t : {a, b})
      dispatch_float(dtype, [&]<class T>() {
        parallel_for(t.size(), 1 << 16, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) store(t.data<T>() + i, std::sin(float(i)));
        });
      });
    const double seconds = shortest(0.12, [&] { matmul(ctx, out, a, b, {.transpose_b = true}); });
    peak = std::max(peak, 2.0 * double(n) * double(n) * double(n) / seconds);
    if (8 * seconds > 0.5) break;  // slow enough that a larger one would say the same, and keep people waiting
  }
  return peak;
}

Machine describe_machine() { return {cpu_name(), isa_name(), omp_get_num_procs(), system_memory()}; }

Peaks measure_cpu_peaks() {
  return {.f32 = measure_product_peak(DType::kF32),
          .bf16 = measure_product_peak(DType::kBF16),
          .bandwidth = triad_bandwidth()};
}

}  // namespace gsae
