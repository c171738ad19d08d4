#include "kernels/timer.h"

#include <chrono>

#include "kernels/dispatch.h"

namespace gsae {

double time_on_device(Context& ctx, const std::function<void()>& op) {
  return GSAE_DISPATCH(ctx.device(), time_on_device(ctx, op));
}

double cpu::time_on_device(Context&, const std::function<void()>& op) {
  const auto start = std::chrono::steady_clock::now();
  op();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace gsae
