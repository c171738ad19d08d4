#pragma once

namespace gsae {

// A named range on the time line of Nsight Systems (NVTX), as long as it lives: phases, steps, layers, launchers.
// Nothing in a build without CUDA.
class Range {
 public:
  explicit Range(const char* name);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

// What lies between the two is recorded by `nsys profile --capture-range=cudaProfilerApi` and `ncu --profile-from-start
// off`. Nothing on the CPU.
void start_profiler();
void stop_profiler();

}  // namespace gsae
