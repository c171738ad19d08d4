#pragma once

#include <functional>

#include "kernels/context.h"

namespace gsae {

// Seconds that the work given to ctx by op() takes on its device, from its first to its last op: by events on cuda, by
// the clock on cpu. Waits for it.
double time_on_device(Context& ctx, const std::function<void()>& op);

namespace cpu {
double time_on_device(Context& ctx, const std::function<void()>& op);
}
namespace cuda {
double time_on_device(Context& ctx, const std::function<void()>& op);
}

}  // namespace gsae
