#include "kernels/range.h"

#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>

#include "kernels/cuda.h"

namespace gsae::cuda {

void push_range(const char* name) { nvtxRangePushA(name); }
void pop_range() { nvtxRangePop(); }
void start_profiler() { CUDA_CHECK(cudaProfilerStart()); }
void stop_profiler() { CUDA_CHECK(cudaProfilerStop()); }

}  // namespace gsae::cuda
