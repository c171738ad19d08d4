#include "kernels/stopwatch.h"

#include <deque>
#include <vector>

#include "kernels/cuda.h"

namespace gsae::cuda {
namespace {

class EventLane final : public Stopwatch::Lane {
 public:
  ~EventLane() override {
    for (const Interval& i : running_) destroy(i);
    for (const Interval& i : spare_) destroy(i);
  }
  void start(Context& ctx) override {
    collect();  // so that a long run needs no more events than are under way
    if (spare_.empty()) {
      Interval fresh;
      CUDA_CHECK(cudaEventCreate(&fresh.start));
      CUDA_CHECK(cudaEventCreate(&fresh.stop));
      spare_.push_back(fresh);
    }
    running_.push_back(spare_.back());
    spare_.pop_back();
    CUDA_CHECK(cudaEventRecord(running_.back().start, ctx.cuda().stream));
  }
  void stop(Context& ctx) override {
    CUDA_CHECK(cudaEventRecord(running_.back().stop, ctx.cuda().stream));
    running_.back().stopped = true;
  }
  double seconds() override {
    collect();
    return total_;
  }

 private:
  struct Interval {
    cudaEvent_t start = nullptr, stop = nullptr;
    bool stopped = false;
  };
  static void destroy(const Interval& i) {
    (void)cudaEventDestroy(i.start);
    (void)cudaEventDestroy(i.stop);
  }

  // Work ends in the order in which it was asked for.
  void collect() {
    while (!running_.empty() && running_.front().stopped) {
      const cudaError_t e = cudaEventQuery(running_.front().stop);
      if (e == cudaErrorNotReady) return;
      CUDA_CHECK(e);
      float milliseconds = 0;
      CUDA_CHECK(cudaEventElapsedTime(&milliseconds, running_.front().start, running_.front().stop));
      total_ += milliseconds * 1e-3;
      running_.front().stopped = false;
      spare_.push_back(running_.front());
      running_.pop_front();
    }
  }

  std::deque<Interval> running_;
  std::vector<Interval> spare_;
  double total_ = 0;
};

}  // namespace

std::shared_ptr<Stopwatch::Lane> make_stopwatch() { return std::make_shared<EventLane>(); }

}  // namespace gsae::cuda
