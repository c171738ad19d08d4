#include "kernels/device_info.h"

#include "kernels/cuda.h"

namespace gsae::cuda {

DeviceInfo device(int index) {
  cudaDeviceProp p;
  CUDA_CHECK(cudaGetDeviceProperties(&p, index));
  DeviceInfo d{.name = p.name,
               .major = p.major,
               .minor = p.minor,
               .multiprocessors = p.multiProcessorCount,
               .memory_total = p.totalGlobalMem,
               .memory_free = 0,
               .cache = static_cast<size_t>(p.l2CacheSize)};
  CUDA_CHECK(cudaMemGetInfo(&d.memory_free, &d.memory_total));
  return d;
}

std::vector<DeviceInfo> devices() {
  int count = 0, current = 0;
  CUDA_CHECK(cudaGetDeviceCount(&count));
  CUDA_CHECK(cudaGetDevice(&current));
  std::vector<DeviceInfo> all;
  for (int i = 0; i < count; ++i) {
    CUDA_CHECK(cudaSetDevice(i));
    all.push_back(device(i));
  }
  CUDA_CHECK(cudaSetDevice(current));
  return all;
}

size_t memory_free() {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return free;
}

std::string versions() {
  int driver = 0, runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  const auto version = [](size_t v, size_t major) {
    return std::to_string(v / major) + "." + std::to_string(v % major / (major == 1000 ? 10 : 100));
  };
  return (driver ? "driver " + version(size_t(driver), 1000) : std::string("no driver")) + ", runtime " +
         version(size_t(runtime), 1000) + ", cuBLASLt " + version(cublasLtGetVersion(), 10000);
}

}  // namespace gsae::cuda
