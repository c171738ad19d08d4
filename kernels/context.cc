#include "kernels/context.h"

#include "kernels/cpu.h"
#include "kernels/dispatch.h"

namespace gsae {

namespace cpu {
std::shared_ptr<CudaState> make_state() { return nullptr; }
void synchronize(CudaState*) {}
bool available() { return true; }
}  // namespace cpu
namespace cuda {
std::shared_ptr<CudaState> make_state();
void synchronize(CudaState*);
bool available();
}  // namespace cuda

Context::Context(Device device)
    : device_(device), cpu_(std::make_shared<CpuState>()), cuda_(GSAE_DISPATCH(device, make_state())) {}

void Context::synchronize() { GSAE_DISPATCH(device_, synchronize(cuda_.get())); }

bool available(Device device) {
#if GSAE_CUDA
  return GSAE_DISPATCH(device, available());
#else
  return device == Device::kCpu;
#endif
}

}  // namespace gsae
