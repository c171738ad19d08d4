#include "kernels/device_info.h"

#include "kernels/dispatch.h"

namespace gsae {

#if GSAE_CUDA
namespace cuda {
std::vector<DeviceInfo> devices();
std::string versions();
}  // namespace cuda
std::vector<DeviceInfo> cuda_devices() {
  return available(Device::kCuda) ? cuda::devices() : std::vector<DeviceInfo>{};
}
std::string cuda_versions() { return cuda::versions(); }
#else
std::vector<DeviceInfo> cuda_devices() { return {}; }
std::string cuda_versions() { return ""; }
#endif

}  // namespace gsae
