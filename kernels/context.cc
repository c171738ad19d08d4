#include "kernels/context.h"

#include "kernels/checkf.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"

namespace gsae {

namespace cpu {
std::shared_ptr<CudaState> make_state(int) { return nullptr; }
void synchronize(CudaState*) {}
std::string why_unavailable() { return ""; }
}  // namespace cpu
namespace cuda {
std::shared_ptr<CudaState> make_state(int index);
void synchronize(CudaState*);
std::string why_unavailable();
CudaBackend backend();
}  // namespace cuda

Context::Context(Device device, int index) : device_(device), index_(index), cpu_(std::make_shared<CpuState>()) {
  const std::string why = why_unavailable(device);
  CHECKF(why.empty(), "no {} device: {}", name(device), why);
  cuda_ = GSAE_DISPATCH(device, make_state(index));
}

void Context::synchronize() { GSAE_DISPATCH(device_, synchronize(cuda_.get())); }

CudaBackend cuda_backend() {
#if GSAE_CUDA
  return cuda::backend();
#else
  return CudaBackend::kNone;
#endif
}

bool available(Device device) { return why_unavailable(device).empty(); }

std::string why_unavailable(Device device) {
  if (device == Device::kCuda && cuda_backend() == CudaBackend::kNone)
    return "this build has no CUDA backend (configured with GSAE_CUDA=OFF)";
  return GSAE_DISPATCH(device, why_unavailable());
}

}  // namespace gsae
