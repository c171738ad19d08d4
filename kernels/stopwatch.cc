#include "kernels/stopwatch.h"

#include <chrono>

#include "kernels/dispatch.h"

namespace gsae {

namespace {

struct ClockLane final : Stopwatch::Lane {
  using Clock = std::chrono::steady_clock;
  void start(Context&) override { began = Clock::now(); }
  void stop(Context&) override { total += std::chrono::duration<double>(Clock::now() - began).count(); }
  double seconds() override { return total; }

  Clock::time_point began;
  double total = 0;
};

}  // namespace

std::shared_ptr<Stopwatch::Lane> cpu::make_stopwatch() { return std::make_shared<ClockLane>(); }

void Stopwatch::start(Context& ctx) {
  if (!lane_) lane_ = GSAE_DISPATCH(ctx.device(), make_stopwatch());
  lane_->start(ctx);
}
void Stopwatch::stop(Context& ctx) { lane_->stop(ctx); }
double Stopwatch::seconds() { return lane_ ? lane_->seconds() : 0; }

}  // namespace gsae
