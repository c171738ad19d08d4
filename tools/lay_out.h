#pragma once

#include <memory>

#include "kernels/memory.h"

namespace gsae {

// For a T whose constructor takes an Arena first: what it will hold ...
template <class T, class... Args> int64_t measure(const Args&... args) {
  Arena plan;
  T(plan, args...);
  return static_cast<int64_t>(plan.used());
}

// ... and the thing itself, in `memory`, which becomes just large enough.
template <class T, class... Args> std::unique_ptr<T> allocate(Device device, Buffer& memory, const Args&... args) {
  memory = Buffer(device, static_cast<size_t>(measure<T>(args...)));
  Arena arena(memory);
  return std::make_unique<T>(arena, args...);
}

}  // namespace gsae
