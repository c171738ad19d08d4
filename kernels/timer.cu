#include "kernels/timer.h"

#include "kernels/cuda.h"

namespace gsae::cuda {

double time_on_device(Context& ctx, const std::function<void()>& op) {
  struct Event {
    cudaEvent_t event = nullptr;
    Event() { CUDA_CHECK(cudaEventCreate(&event)); }
    ~Event() { (void)cudaEventDestroy(event); }
  } start, stop;
  CUDA_CHECK(cudaEventRecord(start.event, ctx.cuda().stream));
  op();
  CUDA_CHECK(cudaEventRecord(stop.event, ctx.cuda().stream));
  ctx.synchronize();
  float milliseconds = 0;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, start.event, stop.event));
  return milliseconds * 1e-3;
}

}  // namespace gsae::cuda
