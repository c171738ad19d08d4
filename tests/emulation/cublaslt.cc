// The part of cuBLASLt that kernels/matmul.cu uses, with its conventions: column order, leading dimensions in elements,
// descriptors checked against each other, preferences as they come by default. An algorithm is valid for the problem
// that the heuristic was asked about, and for operands as aligned as it was told; it needs some workspace, and leaves
// rubbish there. What is not used is CUBLAS_STATUS_NOT_SUPPORTED.
//
// The matrices are checked against their allocations as a whole and multiplied by oneDNN, so that a forward pass of a
// language model takes seconds.

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <oneapi/dnnl/dnnl.h>

#include <cstring>
#include <vector>

#include "emulation/runtime.h"

// What has been checked as a whole need not be checked element by element.
#define UNCHECKED __attribute__((no_sanitize("address", "undefined"), optimize("O3")))

namespace {

constexpr size_t kWorkspaceNeeded = 64 << 10;

struct Desc {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cublasOperation_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;  // (rows of D), dtype of D
};

struct Layout {
  cudaDataType type;
  uint64_t rows, cols;
  int64_t ld;

  bool operator==(const Layout&) const = default;
  size_t element() const { return type == CUDA_R_32F ? 4 : 2; }
  bool valid() const {
    return (type == CUDA_R_32F || type == CUDA_R_16BF) && rows > 0 && cols > 0 && rows < 1u << 31 && cols < 1u << 31 &&
           ld >= int64_t(rows);
  }
  size_t extent() const { return ((cols - 1) * size_t(ld) + rows) * element(); }  // bytes, first to last element
};

struct Preference {
  uint64_t workspace = 0;
  uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_MASK;
  uint32_t align_a = 256, align_b = 256, align_c = 256, align_d = 256;
};

// In the caller's opaque structs. Those that were never initialised hold another number.
template <class T> struct Slot {
  static constexpr uint32_t kReady = 0x1ab5;
  uint32_t ready;
  T value;
};
template <class T, class Opaque> cublasStatus_t init(Opaque* to, size_t size, T value) {
  static_assert(sizeof(Slot<T>) <= sizeof(Opaque));
  if (size != sizeof(Opaque)) return CUBLAS_STATUS_ALLOC_FAILED;
  const Slot<T> slot{Slot<T>::kReady, value};
  std::memcpy(to, &slot, sizeof slot);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T, class Opaque> T* get(Opaque* from) {
  auto* slot = reinterpret_cast<Slot<T>*>(from);
  return from && slot->ready == Slot<T>::kReady ? &slot->value : nullptr;
}

// Sets *field from the caller's buffer, whose size must be the field's.
template <class T> cublasStatus_t assign(T* field, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(field, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

bool consistent(const Desc& d, const Layout& a, const Layout& b, const Layout& c, const Layout& out) {
  const auto rows = [](const Layout& l, cublasOperation_t op) { return op ? l.cols : l.rows; };
  const auto cols = [](const Layout& l, cublasOperation_t op) { return op ? l.rows : l.cols; };
  return a.valid() && b.valid() && out.valid() && c == out && a.type == b.type && cols(a, d.op_a) == rows(b, d.op_b) &&
         out.rows == rows(a, d.op_a) && out.cols == cols(b, d.op_b);
}
bool supported(const Desc& d, const Layout& a, const Layout& out) {
  const bool tf32 = d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  return (d.epilogue == CUBLASLT_EPILOGUE_DEFAULT || d.epilogue == CUBLASLT_EPILOGUE_BIAS) &&
         (a.type == CUDA_R_16BF ? !tf32 : out.type == CUDA_R_32F);
}

// The largest power of two, 16 at most, that divides all of these.
uint32_t alignment(std::initializer_list<uint64_t> values) {
  uint64_t bits = 16;
  for (const uint64_t v : values) bits |= v;
  return uint32_t(bits & -bits);
}
uint64_t address(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// Wants operands as aligned as it was told that they are.
struct Algorithm {
  uint64_t problem;  // a hash of all that it was asked about
  uint32_t align_a, align_b, align_c, align_d, align_bias;
  uint32_t splits, scheme;
  uint64_t workspace;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

uint64_t problem_of(const Desc& d, const Layout& a, const Layout& b, const Layout& out) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a, by words
  for (const uint64_t word :
       {uint64_t(d.compute), uint64_t(d.op_a), uint64_t(d.op_b), uint64_t(d.epilogue), uint64_t(a.type), a.rows, a.cols,
        uint64_t(a.ld), b.rows, b.cols, uint64_t(b.ld), uint64_t(out.type), uint64_t(out.ld)})
    hash = (hash ^ word) * 1099511628211u;
  return hash;
}

UNCHECKED void widen(float* out, const uint16_t* in, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = __builtin_bit_cast(float, uint32_t(in[i]) << 16);
}
// As tensor cores read what is given to them as f32: ten bits of the mantissa, the others cut off.
UNCHECKED void to_tf32(float* out, const float* in, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, in[i]) & 0xffffe000u);
}
UNCHECKED void narrow(uint16_t* out, const float* in, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const uint32_t u = __builtin_bit_cast(uint32_t, in[i]);
    out[i] = (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
  }
}
UNCHECKED void add_row(float* out, const float* in, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] += in[i];
}

// The matrix as f32: itself, or converted into own, closely packed.
struct Operand {
  const float* data;
  int64_t ld;
  std::vector<float> own;

  Operand(const void* p, const Layout& l, bool tf32) : data(static_cast<const float*>(p)), ld(l.ld) {
    if (l.type == CUDA_R_32F && !tf32) return;
    own.resize(l.rows * l.cols);
    data = own.data(), ld = int64_t(l.rows);
    for (uint64_t c = 0; c < l.cols; ++c) {
      float* to = own.data() + c * l.rows;
      const int64_t from = int64_t(c) * l.ld;
      if (tf32) to_tf32(to, static_cast<const float*>(p) + from, l.rows);
      else widen(to, static_cast<const uint16_t*>(p) + from, l.rows);
    }
  }
};

// out = parts of k, each of them summed by itself, then added one after the other. parts: in which order, if more than
// one. round: as they are kept in the dtype of out.
void multiply(float* out, int64_t ld, const Operand& a, const Operand& b, const Desc& d, int64_t m, int64_t n,
              int64_t k, const std::vector<int>& parts, bool round, float alpha, float beta) {
  // dnnl_sgemm takes rows: out^T = op(b)^T op(a)^T
  const char op_a = d.op_a ? 'T' : 'N', op_b = d.op_b ? 'T' : 'N';
  const auto from = [&](int64_t l0, int64_t l1, float* to, int64_t ldto, float keep) {
    const float* pa = a.data + (d.op_a ? l0 : l0 * a.ld);
    const float* pb = b.data + (d.op_b ? l0 * b.ld : l0);
    dnnl_sgemm(op_b, op_a, n, m, l1 - l0, alpha, pb, b.ld, pa, a.ld, keep, to, ldto);
  };
  if (parts.size() == 1) return from(0, k, out, ld, beta);
  std::vector<float> part(size_t(m * n));
  std::vector<uint16_t> rounded(size_t(m * n));
  bool first = beta == 0;
  for (const int i : parts) {
    const int64_t count = int64_t(parts.size());
    from(k * i / count, k * (i + 1) / count, part.data(), m, 0);
    if (round) narrow(rounded.data(), part.data(), part.size()), widen(part.data(), rounded.data(), part.size());
    for (int64_t c = 0; c < n; ++c) {
      if (first) std::memcpy(out + c * ld, part.data() + c * m, size_t(m) * sizeof(float));
      else add_row(out + c * ld, part.data() + c * m, size_t(m));
    }
    first = false;
  }
}

void check_extent(const char* what, const void* p, size_t bytes) {
  const size_t available = emulation::device_bytes(p);
  if (available >= bytes) return;
  throw emulation::Fault("cublasLtMatmul: " + std::string(what) + " takes " + std::to_string(bytes) + " bytes, and " +
                         std::to_string(available) + " of device memory are there");
}
void check_apart(const char* what, const void* p, size_t bytes, const void* out, size_t out_bytes) {
  if (address(p) < address(out) + out_bytes && address(out) < address(p) + bytes)
    throw emulation::Fault("cublasLtMatmul: " + std::string(what) + " overlaps the result");
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* h) {
  return *h = reinterpret_cast<cublasLtHandle_t>(new char), CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return delete reinterpret_cast<char*>(h), CUBLAS_STATUS_SUCCESS; }
const char* cublasLtGetStatusName(cublasStatus_t s) {
  switch (s) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_ALLOC_FAILED: return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED: return "CUBLAS_STATUS_EXECUTION_FAILED";
    default: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
}
size_t cublasLtGetVersion() { return CUBLAS_VERSION; }

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t d, size_t size, cublasComputeType_t compute,
                                               cudaDataType_t scale) {
  if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) || scale != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return init(d, size, Desc{.compute = compute});
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  Desc* d = get<Desc>(desc);
  if (!d) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: return assign(&d->op_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB: return assign(&d->op_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE: return assign(&d->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: return assign(&d->bias, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}
cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t l, size_t size, cudaDataType type,
                                                 uint64_t rows, uint64_t cols, int64_t ld) {
  return init(l, size, Layout{type, rows, cols, ld});
}
cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t p, size_t size) {
  return init(p, size, Preference{});
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  Preference* p = get<Preference>(preference);
  if (!p) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: return assign(&p->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: return assign(&p->reduction, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: return assign(&p->align_a, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: return assign(&p->align_b, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: return assign(&p->align_c, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: return assign(&p->align_d, value, bytes);
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a_layout, cublasLtMatrixLayout_t b_layout,
                                              cublasLtMatrixLayout_t c_layout, cublasLtMatrixLayout_t out_layout,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* returned) {
  *returned = 0;
  const Desc* d = get<Desc>(desc);
  const Layout *a = get<Layout>(a_layout), *b = get<Layout>(b_layout), *c = get<Layout>(c_layout),
               *out = get<Layout>(out_layout);
  const Preference* p = get<Preference>(preference);
  if (requested < 1 || !d || !a || !b || !c || !out || !p || !consistent(*d, *a, *b, *c, *out))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!supported(*d, *a, *out) || p->workspace < kWorkspaceNeeded) return CUBLAS_STATUS_NOT_SUPPORTED;
  // of the schemes that are allowed the one that does most harm
  const uint32_t scheme = p->reduction & CUBLASLT_REDUCTION_SCHEME_INPLACE       ? CUBLASLT_REDUCTION_SCHEME_INPLACE
                          : p->reduction & CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE ? CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE
                                                                                 : CUBLASLT_REDUCTION_SCHEME_NONE;
  const uint64_t k = d->op_a ? a->rows : a->cols;
  const Algorithm algorithm{
      .problem = problem_of(*d, *a, *b, *out),
      .align_a = alignment({p->align_a, uint64_t(a->ld) * a->element()}),
      .align_b = alignment({p->align_b, uint64_t(b->ld) * b->element()}),
      .align_c = alignment({p->align_c, uint64_t(out->ld) * out->element()}),
      .align_d = alignment({p->align_d, uint64_t(out->ld) * out->element()}),
      .align_bias = d->epilogue == CUBLASLT_EPILOGUE_BIAS ? alignment({address(d->bias)}) : 1,
      .splits = scheme != CUBLASLT_REDUCTION_SCHEME_NONE && k >= 3 ? 3u : 1u,
      .scheme = scheme,
      .workspace = kWorkspaceNeeded,
  };
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
  results[0].workspaceSize = kWorkspaceNeeded;
  results[0].wavesCount = 1;
  return *returned = 1, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algo,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute, void* buf,
                                                    size_t bytes, size_t* written) {
  Algorithm a;
  std::memcpy(&a, algo, sizeof a);
  uint32_t value = 0;
  size_t size = 4;
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_ID: value = 1; break;
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM: value = a.splits; break;
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME: value = a.scheme; break;
    case CUBLASLT_ALGO_CONFIG_TILE_ID:
    case CUBLASLT_ALGO_CONFIG_STAGES_ID: break;
    case CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID: size = 2; break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (bytes != 0 && (bytes != size || !buf)) return CUBLAS_STATUS_INVALID_VALUE;
  if (bytes != 0) std::memcpy(buf, &value, size);
  if (written) *written = size;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* out,
                              cublasLtMatrixLayout_t out_layout, const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const Desc* pd = get<Desc>(desc);
  const Layout *pa = get<Layout>(a_layout), *pb = get<Layout>(b_layout), *pc = get<Layout>(c_layout),
               *po = get<Layout>(out_layout);
  if (!pd || !pa || !pb || !pc || !po || !algo || !consistent(*pd, *pa, *pb, *pc, *po))
    return CUBLAS_STATUS_INVALID_VALUE;
  const Desc d = *pd;
  const Layout la = *pa, lb = *pb, lo = *po;
  Algorithm how;
  std::memcpy(&how, algo, sizeof how);
  if (!supported(d, la, lo) || how.problem != problem_of(d, la, lb, lo)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (workspace_bytes < how.workspace || address(workspace) % 256 ||
      workspace_bytes > emulation::device_bytes(workspace) || address(a) % how.align_a || address(b) % how.align_b ||
      c != out || address(c) % how.align_c || address(out) % how.align_d || address(d.bias) % how.align_bias)
    return CUBLAS_STATUS_INVALID_VALUE;
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);

  const cudaError_t e = emulation::enqueue(stream, [=] {
    check_extent("A", a, la.extent());
    check_extent("B", b, lb.extent());
    check_extent("D", out, lo.extent());
    check_apart("A", a, la.extent(), out, lo.extent());
    check_apart("B", b, lb.extent(), out, lo.extent());
    const bool bias = d.epilogue == CUBLASLT_EPILOGUE_BIAS;
    if (bias) check_extent("the bias", d.bias, lo.rows * lo.element());
    std::memset(workspace, 0xff, how.workspace);

    const bool tf32 = d.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    const Operand fa(a, la, tf32), fb(b, lb, tf32);
    const int64_t m = int64_t(lo.rows), n = int64_t(lo.cols), k = int64_t(d.op_a ? la.rows : la.cols);
    std::vector<int> parts{0};
    for (int i = 1; i < int(how.splits); ++i) parts.push_back(i);
    if (how.scheme == CUBLASLT_REDUCTION_SCHEME_INPLACE && emulation::random_bits() % 2)
      parts.assign(parts.rbegin(), parts.rend());  // whichever is done first

    const bool rounds = lo.type == CUDA_R_16BF;
    std::vector<float> wide;  // (n, m), where D is bf16
    float* sums = static_cast<float*>(out);
    int64_t ld = lo.ld;
    if (rounds) {
      wide.resize(size_t(m * n));
      if (keep != 0)
        for (int64_t col = 0; col < n; ++col)
          widen(wide.data() + col * m, static_cast<uint16_t*>(out) + col * lo.ld, size_t(m));
      sums = wide.data(), ld = m;
    }
    multiply(sums, ld, fa, fb, d, m, n, k, parts, rounds && how.scheme == CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE, scale,
             keep);
    std::vector<float> b16;
    const float* add = static_cast<const float*>(d.bias);
    if (bias && rounds) b16.resize(size_t(m)), widen(b16.data(), static_cast<const uint16_t*>(d.bias), size_t(m));
    if (bias && rounds) add = b16.data();
    for (int64_t col = 0; col < n; ++col) {
      if (bias) add_row(sums + col * ld, add, size_t(m));
      if (rounds) narrow(static_cast<uint16_t*>(out) + col * lo.ld, wide.data() + col * m, size_t(m));
    }
  });
  return e == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
