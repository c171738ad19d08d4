#include "kernels/device_info.h"

#include "kernels/dispatch.h"

namespace gsae {

#if GSAE_CUDA
namespace cuda {
DeviceInfo device(int index);
std::vector<DeviceInfo> devices();
size_t memory_free();
std::string versions();
}  // namespace cuda
size_t cuda_memory_free() { return cuda::memory_free(); }
DeviceInfo cuda_device(int index) { return cuda::device(index); }
std::vector<DeviceInfo> cuda_devices() {
  return available(Device::kCuda) ? cuda::devices() : std::vector<DeviceInfo>{};
}
std::string cuda_versions() { return cuda::versions(); }
#else
std::vector<DeviceInfo> cuda_devices() { return {}; }
size_t cuda_memory_free() { return 0; }
DeviceInfo cuda_device(int) { return {}; }
std::string cuda_versions() { return ""; }
#endif

}  // namespace gsae
