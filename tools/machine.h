#pragma once

#include <string>

#include "io/system_memory.h"
#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// What this machine says it is.
struct Machine {
  std::string cpu;     // as the processor names itself: "AMD EPYC 9575F"
  std::string isa;     // widest of "AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16"; or "baseline"
  int processors = 1;  // logical, of those that this process may use
  SystemMemory memory;
};
Machine describe_machine();

// What its processors reach at their best: the roofs that the program's own figures are held against.
struct Peaks {
  double f32 = 0, bf16 = 0;  // FLOP/s of kernels/matmul, by the dtype of its operands
  double bandwidth = 0;      // bytes/s of a[i] = b[i] + s c[i], 12 bytes an element (McCalpin's STREAM triad)
};

// The first or the second of these alone, of this or another device, in a fraction of a second. tf32: of f32 operands,
// rounded to it. Infinite on an emulated GPU, whose speed says nothing.
double measure_product_peak(const Context& ctx, DType dtype, bool tf32 = false);
// Bytes/s of a large copy within the device's memory, read and written.
double measure_copy_bandwidth(const Context& ctx);

// Measures for one to two seconds, on as many threads as OpenMP is set to, in 384 MiB that are given back. On a busy
// machine the peaks come out low. Each of the triad's arrays has 128 MiB, to lie beyond the last-level cache: of a
// server whose cache is larger than that, the bandwidth is in part the cache's.
Peaks measure_cpu_peaks();

}  // namespace gsae
