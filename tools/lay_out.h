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

// ... and the thing itself, in `memory`, which becomes just large enough, and is there: what the CPU's system has
// promised only would be missing when it is first written, hours later.
template <class T, class... Args> std::unique_ptr<T> allocate(Device device, Buffer& memory, const Args&... args) {
  memory = Buffer(device, static_cast<size_t>(measure<T>(args...)));
  commit(memory);
  Arena arena(memory);
  return std::make_unique<T>(arena, args...);
}

}  // namespace gsae
