#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kernels/context.h"

namespace gsae {

// What the CUDA runtime says of one GPU.
struct DeviceInfo {
  std::string name;          // "NVIDIA H200"
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t memory_total = 0, memory_free = 0;  // bytes
  size_t cache = 0;                          // bytes of L2
};

// Of one of them, as the CUDA runtime counts them; it must be there. What is free is asked of the calling thread's GPU.
DeviceInfo cuda_device(int index);
// All GPUs that this build and this process can use; none without a CUDA backend, a driver or a GPU.
// Asks each of them, which takes some hundred MiB on each: for a doctor, not for a run.
std::vector<DeviceInfo> cuda_devices();
size_t cuda_memory_free();    // bytes, of the calling thread's GPU
std::string cuda_versions();  // "driver 13.0, runtime 13.0, cuBLASLt 13.1"; empty without a CUDA backend

}  // namespace gsae
