#pragma once

// How a .cu file starts a kernel, and how a kernel finds its dynamic shared memory. There is no
// <<<>>> in the code base: the same .cu files are also compiled by the host compiler, against
// tests/emulation/, where cudaLaunchKernelEx runs the grid on the CPU.

#include <source_location>

#include "kernels/cuda.h"

namespace gsae {

// A grid made of 64-bit counts, which remembers who asked for it, so that a launch error names the
// launcher and not this file.
struct Grid {
  dim3 blocks;
  std::source_location where;

  Grid(int64_t x, int64_t y = 1, int64_t z = 1, std::source_location where = std::source_location::current())
      : blocks(narrow(x), narrow(y), narrow(z)), where(where) {}

 private:
  static unsigned narrow(int64_t n) {
    CHECK(0 <= n && n <= 0x7fffffff, "a grid of " + std::to_string(n) + " blocks");
    return static_cast<unsigned>(n);
  }
};

// kernel<<<grid, block, shared_bytes, stream>>>(args...), checked.
template <class... Params, class... Args>
void launch(void (*kernel)(Params...), Grid grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
            Args&&... args) {
  const auto check = [&](cudaError_t e) {
    cuda_check(e, grid.where.file_name(), static_cast<int>(grid.where.line()), "launch");
  };
  if (shared_bytes > 48 << 10)  // more must be asked for
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

// The block's dynamic shared memory, shared_bytes long, 16-byte aligned at least.
template <class T> __device__ T* dynamic_shared() {
#if GSAE_CUDA_EMULATED
  return static_cast<T*>(emulation::dynamic_shared());
#else
  extern __shared__ __align__(1024) unsigned char gsae_dynamic_shared[];
  return reinterpret_cast<T*>(gsae_dynamic_shared);
#endif
}

}  // namespace gsae
