#include "tools/machine.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cmath>
#include <fstream>
#include <string>

#include "tests/harness.h"

namespace gsae::test {
namespace {

// The kernel asks the processor by itself: /proc/cpuinfo is a second opinion.
std::string cpuinfo(const std::string& field) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(field)) return line.substr(line.find(':') + 1) + " ";
  return "";
}

#ifdef __x86_64__
TEST(Machine, NameAndInstructionSetAreThoseThatTheKernelSees) {
  const Machine machine = describe_machine();
  EXPECT_EQ(" " + machine.cpu, cpuinfo("model name").substr(0, machine.cpu.size() + 1));
  EXPECT_FALSE(machine.cpu.empty());
  const std::string flags = cpuinfo("flags");
  const auto has = [&](const std::string& flag) { return flags.find(" " + flag + " ") != std::string::npos; };
  const std::string isa = has("amx_bf16")      ? "AMX BF16"
                          : has("avx512_bf16") ? "AVX-512 BF16"
                          : has("avx512f")     ? "AVX-512"
                          : has("avx2")        ? "AVX2"
                                               : "baseline";
  EXPECT_EQ(machine.isa, isa);
}
#endif

TEST(Machine, CountsTheProcessorsThatThisProcessMayUse) {
  cpu_set_t all, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  EXPECT_EQ(describe_machine().processors, CPU_COUNT(&all));
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  const int processors = describe_machine().processors;
  sched_setaffinity(0, sizeof all, &all);
  EXPECT_EQ(processors, 1);
}

// No bounds from this or that machine: only that they are measurements. A peak of nothing divides by zero later.
TEST(Machine, PeaksAreFiniteAndPositive) {
  const Peaks peaks = measure_cpu_peaks();
  for (const double peak : {peaks.f32, peaks.bf16, peaks.bandwidth}) {
    EXPECT_TRUE(std::isfinite(peak));
    EXPECT_GT(peak, 1e6);
  }
}

struct MachineOnGpu : OnDevice {};
ON_GPUS(MachineOnGpu);

TEST_P(MachineOnGpu, PeaksAreThoseOfTheGpu) {
  for (const double peak : {measure_product_peak(ctx, DType::kF32), measure_product_peak(ctx, DType::kF32, true),
                            measure_product_peak(ctx, DType::kBF16), measure_copy_bandwidth(ctx)}) {
    EXPECT_GT(peak, 1e9);
    EXPECT_EQ(std::isfinite(peak), cuda_backend() == CudaBackend::kGpu);  // whose time means something
  }
}

}  // namespace
}  // namespace gsae::test
