#include "kernels/cuda.h"

#include <nvtx3/nvToolsExtCudaRt.h>

#include "kernels/memory.h"

namespace gsae {

namespace cuda {

namespace {
void forget_faults(CudaState& s) { CUDA_CHECK(cudaMemsetAsync(s.fault, 0xff, sizeof(DeviceFault), s.stream)); }
}  // namespace

std::shared_ptr<CudaState> make_state(int index) {
  int count = 0;
  CUDA_CHECK(cudaGetDeviceCount(&count));
  const std::string name = "cuda:" + std::to_string(index);
  if (index < 0 || index >= count)
    throw Error(name + ": this machine has " + std::to_string(count) +
                (count == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:" + std::to_string(count - 1)));
  CUDA_CHECK(cudaSetDevice(index));
  int major = 0, minor = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index));
  CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index));
  if (major < 8)
    throw Error(name + " is of compute capability " + std::to_string(major) + "." + std::to_string(minor) +
                "; 8.0 (Ampere) or later is needed: use --device cpu");

  auto s = std::shared_ptr<CudaState>(new CudaState, [](CudaState* p) {
    (void)cudaFree(p->workspace);
    (void)cudaFree(p->fault);
    (void)cudaFreeHost(p->fault_on_host);
    if (p->lt) cublasLtDestroy(p->lt);
    if (p->copy_stream) (void)cudaStreamDestroy(p->copy_stream);
    if (p->stream) (void)cudaStreamDestroy(p->stream);
    delete p;
  });
  s->index = index;
  CUDA_CHECK(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
  CUDA_CHECK(cudaStreamCreateWithFlags(&s->copy_stream, cudaStreamNonBlocking));
  nvtxNameCudaStreamA(s->stream, "compute");
  nvtxNameCudaStreamA(s->copy_stream, "copy");
  CUBLAS_CHECK(cublasLtCreate(&s->lt));
  s->workspace = allocate(Context::kWorkspaceBytes);
  s->workspace_bytes = Context::kWorkspaceBytes;
  s->fault = reinterpret_cast<DeviceFault*>(allocate(sizeof(DeviceFault)));
  CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&s->fault_on_host), sizeof(DeviceFault)));
  forget_faults(*s);
  return s;
}

void synchronize(CudaState* s) {
  CUDA_CHECK(cudaStreamSynchronize(s->copy_stream));
  CUDA_CHECK(cudaMemcpyAsync(s->fault_on_host, s->fault, sizeof(DeviceFault), cudaMemcpyDeviceToHost, s->stream));
  CUDA_CHECK(cudaStreamSynchronize(s->stream));
  const std::string fault = describe(*s->fault_on_host);
  if (fault.empty()) return;
  forget_faults(*s);
  throw Error(fault);
}

std::string why_unavailable() {
  int n = 0;
  const cudaError_t e = cudaGetDeviceCount(&n);
  if (e == cudaSuccess && n > 0) return "";
  (void)cudaGetLastError();
  int driver = 0, runtime = 0;
  (void)cudaDriverGetVersion(&driver);
  (void)cudaRuntimeGetVersion(&runtime);
  const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
  if (driver == 0) return "no NVIDIA driver is installed or loaded (nvidia-smi tells more)";
  if (e == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is too old: it supports CUDA " + version(driver) + ", this build needs " +
           version(runtime) + ": update the driver";
  if (e == cudaErrorNoDevice || (e == cudaSuccess && n == 0))
    return "the NVIDIA driver sees no GPU (is CUDA_VISIBLE_DEVICES set?)";
  return std::string(cudaGetErrorName(e)) + ": " + cudaGetErrorString(e);
}

CudaBackend backend() { return GSAE_CUDA_EMULATED ? CudaBackend::kEmulated : CudaBackend::kGpu; }

std::byte* allocate(size_t bytes) {
  std::byte* p = nullptr;
  const cudaError_t e = cudaMalloc(reinterpret_cast<void**>(&p), bytes);
  if (e == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    size_t free = 0, total = 0;
    (void)cudaMemGetInfo(&free, &total);
    throw Error("out of device memory: wanted " + std::to_string(bytes >> 20) + " MiB, " + std::to_string(free >> 20) +
                " MiB of " + std::to_string(total >> 20) + " are free; choose a smaller --buffer, --batch or --width");
  }
  CUDA_CHECK(e);
  return p;
}

void release(std::byte* p) noexcept { (void)cudaFree(p); }

void copy(Context& ctx, Tensor dst, Tensor src) {
  if (src.bytes() == 0) return;
  CUDA_CHECK(cudaMemcpyAsync(dst.ptr, src.ptr, src.bytes(), cudaMemcpyDefault, ctx.cuda().stream));
}

}  // namespace cuda
}  // namespace gsae
