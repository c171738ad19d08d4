#include "kernels/transfer.h"

#include <cstring>

#include "kernels/cuda.h"
#include "kernels/memory.h"

namespace gsae::cuda {
namespace {

// Memory on both sides of the bus, and the two events that its use goes by.
struct Slot {
  std::byte *host = nullptr, *device = nullptr;
  cudaEvent_t arrived = nullptr;  // on the copy stream
  cudaEvent_t used = nullptr;     // on the compute stream: the slot may be filled again

  explicit Slot(size_t bytes) {
    CUDA_CHECK(cudaMallocHost(reinterpret_cast<void**>(&host), bytes));
    device = allocate(bytes);
    CUDA_CHECK(cudaEventCreateWithFlags(&arrived, cudaEventDisableTiming));
    CUDA_CHECK(cudaEventCreateWithFlags(&used, cudaEventDisableTiming));
  }
  ~Slot() {
    if (used) (void)cudaEventSynchronize(used);  // of a slot that was never used: at once
    if (arrived) (void)cudaEventSynchronize(arrived);
    if (used) (void)cudaEventDestroy(used);
    if (arrived) (void)cudaEventDestroy(arrived);
    (void)cudaFree(device);
    (void)cudaFreeHost(host);
  }
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
};

class PinnedUpload final : public Upload::Lane {
 public:
  explicit PinnedUpload(size_t bytes) : bytes_(bytes), slots_{Slot(bytes), Slot(bytes)} {}

  void send(Context& ctx, Tensor dst, Tensor host) override {
    CHECK(host.bytes() <= bytes_,
          "upload of " + gsae::describe(host) + ": laid out for " + std::to_string(bytes_) + " bytes");
    CudaState& s = ctx.cuda();
    Slot& slot = slots_[next_ ^= 1];
    CUDA_CHECK(cudaEventSynchronize(slot.used));  // the pinned memory is free again, and so is the device's
    std::memcpy(slot.host, host.ptr, host.bytes());
    CUDA_CHECK(cudaMemcpyAsync(slot.device, slot.host, host.bytes(), cudaMemcpyHostToDevice, s.copy_stream));
    CUDA_CHECK(cudaEventRecord(slot.arrived, s.copy_stream));
    CUDA_CHECK(cudaStreamWaitEvent(s.stream, slot.arrived, 0));
    CUDA_CHECK(cudaMemcpyAsync(dst.ptr, slot.device, host.bytes(), cudaMemcpyDeviceToDevice, s.stream));
    CUDA_CHECK(cudaEventRecord(slot.used, s.stream));
  }

 private:
  size_t bytes_;
  Slot slots_[2];
  int next_ = 0;
};

class PinnedReadback final : public Readback::Lane {
 public:
  explicit PinnedReadback(size_t bytes) : slot_(bytes) {}

  void request(Context& ctx, Tensor src) override {
    CudaState& s = ctx.cuda();
    // An earlier request may still be on its way out of the slot. What it brings is taken by nobody, and this one's
    // copy is behind it: the ops need not wait.
    CUDA_CHECK(cudaMemcpyAsync(slot_.device, src.ptr, src.bytes(), cudaMemcpyDeviceToDevice, s.stream));
    CUDA_CHECK(cudaEventRecord(slot_.used, s.stream));
    CUDA_CHECK(cudaStreamWaitEvent(s.copy_stream, slot_.used, 0));
    CUDA_CHECK(cudaMemcpyAsync(slot_.host, slot_.device, src.bytes(), cudaMemcpyDeviceToHost, s.copy_stream));
    CUDA_CHECK(cudaEventRecord(slot_.arrived, s.copy_stream));
  }
  bool ready() const override {
    const cudaError_t e = cudaEventQuery(slot_.arrived);
    if (e == cudaErrorNotReady) return (void)cudaGetLastError(), false;  // an answer, and kept as an error all the same
    CUDA_CHECK(e);
    return true;
  }
  const std::byte* wait() override {
    CUDA_CHECK(cudaEventSynchronize(slot_.arrived));
    return slot_.host;
  }

 private:
  Slot slot_;
};

}  // namespace

std::shared_ptr<Upload::Lane> make_upload(Context&, size_t bytes) { return std::make_shared<PinnedUpload>(bytes); }
std::shared_ptr<Readback::Lane> make_readback(Context&, size_t bytes) {
  return std::make_shared<PinnedReadback>(bytes);
}

}  // namespace gsae::cuda
