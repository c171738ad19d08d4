// The part of cuBLASLt that a matmul launcher needs, with its conventions: column order unless the
// layout says otherwise, leading dimensions and batch strides in elements, descriptors checked
// against each other. Every element is read and written through the caller's descriptors, under
// AddressSanitizer; only the multiplication of the gathered f32 matrices is oneDNN's.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <oneapi/dnnl/dnnl.h>

#include <cstring>
#include <vector>

#include "emulation/runtime.h"

namespace {

struct Desc {  // a cublasLtMatmulDesc_t
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // (rows of D), dtype of D
};

struct Layout {  // a cublasLtMatrixLayout_t
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;
  cublasLtOrder_t order = CUBLASLT_ORDER_COL;
  int32_t batch = 1;
  int64_t stride = 0;

  bool valid() const {
    return (type == CUDA_R_32F || type == CUDA_R_16BF) && batch > 0 &&
           (order == CUBLASLT_ORDER_COL   ? ld >= int64_t(rows)
            : order == CUBLASLT_ORDER_ROW ? ld >= int64_t(cols)
                                          : false);
  }
  int64_t at(uint64_t r, uint64_t c, int b) const {
    return b * stride + int64_t(order == CUBLASLT_ORDER_COL ? r + c * ld : r * ld + c);
  }
};

Desc& get(cublasLtMatmulDesc_t d) { return *reinterpret_cast<Desc*>(d); }
Layout& get(cublasLtMatrixLayout_t l) { return *reinterpret_cast<Layout*>(l); }

float load(const void* p, cudaDataType type, int64_t i) {
  return type == CUDA_R_32F ? static_cast<const float*>(p)[i] : float(static_cast<const __nv_bfloat16*>(p)[i]);
}
void store(void* p, cudaDataType type, int64_t i, float v) {
  if (type == CUDA_R_32F) static_cast<float*>(p)[i] = v;
  else static_cast<__nv_bfloat16*>(p)[i] = __nv_bfloat16(v);
}

// op(matrix), in row order, as f32
std::vector<float> gather(const void* p, const Layout& l, cublasOperation_t op, int batch) {
  const bool t = op != CUBLAS_OP_N;
  const uint64_t rows = t ? l.cols : l.rows, cols = t ? l.rows : l.cols;
  std::vector<float> out(rows * cols);
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t c = 0; c < cols; ++c) out[r * cols + c] = load(p, l.type, t ? l.at(c, r, batch) : l.at(r, c, batch));
  return out;
}

bool consistent(const Desc& d, const Layout& a, const Layout& b, const Layout& c, const Layout& out) {
  const auto rows = [](const Layout& l, cublasOperation_t op) { return op ? l.cols : l.rows; };
  const auto cols = [](const Layout& l, cublasOperation_t op) { return op ? l.rows : l.cols; };
  return a.valid() && b.valid() && c.valid() && out.valid() && a.type == b.type && c.type == out.type &&
         cols(a, d.op_a) == rows(b, d.op_b) && out.rows == rows(a, d.op_a) && out.cols == cols(b, d.op_b) &&
         c.rows == out.rows && c.cols == out.cols && a.batch == out.batch && b.batch == out.batch &&
         c.batch == out.batch;
}

// An algorithm is good for the problem that it was asked for, and no other.
cublasLtMatmulAlgo_t algorithm(const Desc& d, const Layout& a, const Layout& b, const Layout& out) {
  return {{uint64_t(d.op_a) << 8 | d.op_b, uint64_t(a.type) << 8 | out.type, a.rows, a.cols, b.rows, b.cols, out.rows,
           out.cols}};
}

// Sets *field from the caller's buffer, whose size must be the field's.
template <class T> cublasStatus_t assign(T* field, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) {
  return *h = reinterpret_cast<cublasLtHandle_t>(new char), CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return delete reinterpret_cast<char*>(h), CUBLAS_STATUS_SUCCESS; }
const char* cublasLtGetStatusName(cublasStatus_t s) {
  return s == CUBLAS_STATUS_SUCCESS         ? "CUBLAS_STATUS_SUCCESS"
         : s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                            : "CUBLAS_STATUS_NOT_SUPPORTED";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t compute, cudaDataType_t scale) {
  if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return *d = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc), CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return delete &get(d), CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return assign(&get(d).op_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return assign(&get(d).op_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return assign(&get(d).epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return assign(&get(d).bias, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
  *l = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{type, rows, cols, ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return delete &get(l), CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute,
                                                const void* value, size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER: return assign(&get(l).order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: return assign(&get(l).batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: return assign(&get(l).stride, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p) {
  return *p = new cublasLtMatmulPreferenceOpaque_t{}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return delete p, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t,
                                                    const void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = 0;
  if (requested < 1 || !consistent(get(d), get(a), get(b), get(c), get(out))) return CUBLAS_STATUS_INVALID_VALUE;
  results[0] = {};
  results[0].algo = algorithm(get(d), get(a), get(b), get(out));
  return *returned = 1, CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* out,
                              cublasLtMatrixLayout_t out_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const Desc d = get(desc);
  const Layout la = get(a_layout), lb = get(b_layout), lc = get(c_layout), lo = get(out_layout);
  if (!consistent(d, la, lb, lc, lo) || reinterpret_cast<uintptr_t>(workspace) % 256 ||
      workspace_bytes > emulation::device_bytes(workspace))
    return CUBLAS_STATUS_INVALID_VALUE;
  const cublasLtMatmulAlgo_t mine = algorithm(d, la, lb, lo);
  if (algo && std::memcmp(algo, &mine, sizeof mine) != 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (d.epilogue != CUBLASLT_EPILOGUE_DEFAULT && d.epilogue != CUBLASLT_EPILOGUE_BIAS)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const cudaError_t e = emulation::enqueue(stream, [=] {
    for (int batch = 0; batch < lo.batch; ++batch) {
      const auto fa = gather(a, la, d.op_a, batch), fb = gather(b, lb, d.op_b, batch);
      const int m = int(lo.rows), n = int(lo.cols), k = int(fa.size() / lo.rows);
      std::vector<float> product(size_t(m) * n);
      dnnl_sgemm('N', 'N', m, n, k, 1, fa.data(), k, fb.data(), n, 0, product.data(), n);
      for (int r = 0; r < m; ++r)
        for (int col = 0; col < n; ++col) {
          float v = scale * product[size_t(r) * n + col];
          if (keep != 0) v += keep * load(c, lc.type, lc.at(r, col, batch));
          if (d.epilogue == CUBLASLT_EPILOGUE_BIAS) v += load(d.bias, lo.type, r);
          store(out, lo.type, lo.at(r, col, batch), v);
        }
    }
  });
  return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

size_t cublasLtGetVersion() { return CUBLAS_VERSION; }
