#pragma once

#include "tests/harness.h"

namespace gsae::test {

// A vector of whatever a Tensor holds (integers, doubles), on the context's device. Read it with download<T>.
template <class T> Guarded on_device(Context& ctx, const std::vector<T>& values) {
  Guarded tensor(ctx, dtype_of<T>(), {static_cast<int64_t>(values.size())});
  upload(ctx, tensor, values);
  return tensor;
}

}  // namespace gsae::test
