#pragma once

#include <cstddef>
#include <memory>

#include "kernels/tensor.h"

namespace gsae {

struct CpuState;   // oneDNN engine, products and scratch: kernels/cpu.h, seen by kernels/*.cc only
struct CudaState;  // stream, cuBLASLt handle and workspace: kernels/cuda.h, seen by .cu files only

// What an op needs beside its operands. Passed to every op; there are no globals. Work on one
// Context is ordered; on cuda it is asynchronous until synchronize().
class Context {
 public:
  explicit Context(Device device);  // throws if the build or the machine lacks it

  Device device() const { return device_; }
  CpuState& cpu() const { return *cpu_; }
  CudaState& cuda() const { return *cuda_; }
  void synchronize();

  // Bytes that a Context itself holds for scratch, beside what its owner carves from an Arena.
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

 private:
  Device device_;
  std::shared_ptr<CpuState> cpu_;
  std::shared_ptr<CudaState> cuda_;
};

bool available(Device device);

}  // namespace gsae
