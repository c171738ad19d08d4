#pragma once

// For the CPU backend's .cc files only.

#include <oneapi/dnnl/dnnl.hpp>

#include <array>
#include <map>

#include "kernels/context.h"
#include "kernels/memory.h"

namespace gsae {

struct CpuState {
  struct Product {
    dnnl::matmul primitive;
    dnnl::memory::desc a, b, bias, out, scratchpad;
  };

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  // (m, n, k, leading dimensions, dtypes, transpositions, beta, bias) -> a product compiled once
  std::map<std::array<int64_t, 7>, Product> products;
  Buffer workspace{Device::kCpu, Context::kWorkspaceBytes};  // widened or narrowed operand panels
  Buffer scratchpad;                                         // oneDNN's, of the largest product yet
};

}  // namespace gsae
