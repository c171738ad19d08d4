#pragma once

// For .cu files and the CUDA backend only.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <array>
#include <map>

#include "kernels/context.h"
#include "kernels/device_fault.h"
#include "kernels/range.h"

namespace gsae {

static_assert(sizeof(BF16) == sizeof(__nv_bfloat16));

inline void cuda_check(cudaError_t e, const char* file, int line, const char* expr) {
  if (e == cudaSuccess) return;
  (void)cudaGetLastError();  // clear it, or the next, innocent call reports it again
  fail(file, line, expr, std::string(cudaGetErrorName(e)) + ": " + cudaGetErrorString(e));
}

inline void cublas_check(cublasStatus_t s, const char* file, int line, const char* expr) {
  if (s != CUBLAS_STATUS_SUCCESS) fail(file, line, expr, cublasLtGetStatusName(s));
}

struct CudaState {
  int index = 0;
  cudaStream_t stream = nullptr;       // every op
  cudaStream_t copy_stream = nullptr;  // what kernels/transfer.h moves
  cublasLtHandle_t lt = nullptr;
  // Ours, for one op at a time: cuBLASLt's, which with it is deterministic and may be captured into a graph; and the
  // partial sums of the ops that reduce over rows.
  std::byte* workspace = nullptr;
  size_t workspace_bytes = 0;
  DeviceFault* fault = nullptr;          // device memory that kernels write: atomics on host memory depend on the bus
  DeviceFault* fault_on_host = nullptr;  // pinned: its copy at the last synchronize()
  // what describes a product (kernels/matmul.cu) -> what the heuristic chose at the first call, for good
  std::map<std::array<int64_t, 8>, cublasLtMatmulHeuristicResult_t> matmul_algorithms;
};

// The workspace as n elements of T. An Error if it is too small: choose the grid by what fits.
template <class T> T* workspace(Context& ctx, int64_t n) {
  CHECK(n >= 0 && static_cast<size_t>(n) <= ctx.cuda().workspace_bytes / sizeof(T), "the workspace is too small");
  return reinterpret_cast<T*>(ctx.cuda().workspace);
}

// The elements as device code sees them: BF16 as __nv_bfloat16.
template <class T> T* device_data(const Tensor& t) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) return reinterpret_cast<T*>(t.data<BF16>());
  else return t.data<T>();
}

// dispatch_device_float(dtype, [&]<class T>() { launch(kernel<T>, ..., device_data<T>(x)); });
template <class F> void dispatch_device_float(DType t, F&& f) {
  switch (t) {
    case DType::kF32: return f.template operator()<float>();
    case DType::kBF16: return f.template operator()<__nv_bfloat16>();
    default: CHECK(false, std::string("expected f32 or bf16, got ") + name(t));
  }
}

}  // namespace gsae

#define CUDA_CHECK(expr) ::gsae::cuda_check((expr), __FILE__, __LINE__, #expr)
#define CUBLAS_CHECK(expr) ::gsae::cublas_check((expr), __FILE__, __LINE__, #expr)
