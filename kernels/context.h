#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "kernels/tensor.h"

namespace gsae {

struct CpuState;   // oneDNN engine, products and scratch: kernels/cpu.h, seen by kernels/*.cc only
struct CudaState;  // streams, cuBLASLt handle and workspace: kernels/cuda.h, seen by .cu files only

// What an op needs beside its operands. Passed to every op; there are no globals. Work on one Context is ordered; on
// cuda it is asynchronous until synchronize().
class Context {
 public:
  // index: which GPU, as the CUDA runtime counts them. It becomes the calling thread's GPU: one GPU for each thread.
  // An Error if the build or the machine lacks it, that says why.
  explicit Context(Device device, int index = 0);

  Device device() const { return device_; }
  int index() const { return index_; }
  CpuState& cpu() const { return *cpu_; }
  CudaState& cuda() const { return *cuda_; }

  // Waits for all that was asked for. An Error if a kernel met a value that it has to refuse (a token outside the
  // vocabulary) since the last call.
  void synchronize();

  // Whether a Graph (kernels/graph.h) records and replays, or runs its ops one by one every time.
  bool graphs = true;

  // Bytes that a Context itself holds for scratch on its device, beside what its owner carves from an Arena.
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

 private:
  Device device_;
  int index_;
  std::shared_ptr<CpuState> cpu_;
  std::shared_ptr<CudaState> cuda_;
};

// The CUDA backend of this build: emulated means the same kernels, run by the CPU for tests.
enum class CudaBackend { kNone, kGpu, kEmulated };
CudaBackend cuda_backend();

// Whether this build and this machine have it; if not, why_unavailable says what is missing (else it is empty).
bool available(Device device);
std::string why_unavailable(Device device);

}  // namespace gsae
