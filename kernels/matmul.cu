// cuBLASLt stores matrices by columns. A row-major matrix is its transpose stored so, and out^T = b^T a^T: the product
// is asked for with its operands exchanged, and nothing is transposed on the way. What cuBLASLt calls A is b here.

#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/cuda.h"

namespace gsae::cuda {
namespace {

// A product whose operands may be parts of wider matrices: ld is the distance between stored rows, in elements.
struct Problem {
  int64_t m, n, k;
  int64_t lda, ldb, ldout;
  DType dtype, out_dtype;
  MatmulOptions options;
  std::byte* out;
  const std::byte *a, *b;
};

cudaDataType_t cuda_type(DType t) { return t == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

// The alignment in bytes, 256 at most, that the matrix's rows share: kernels are built for one each.
uint32_t alignment(const void* ptr, int64_t ld, DType t) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(ptr) | static_cast<uint64_t>(ld) * size_of(t) | 256;
  return static_cast<uint32_t>(bits & -bits);
}

// The sums of parts of k, if k is split, are left in the workspace and added in order. Excluded are
// CUBLASLT_REDUCTION_SCHEME_INPLACE, which adds into out in whatever order they are done, and _OUTPUT_TYPE, which
// rounds each part to the dtype of out.
constexpr uint32_t kReduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;

// Everything that the choice of an algorithm depends on, as the key under which it is kept.
constexpr int64_t kTransposeA = 1, kTransposeB = 2, kAccumulate = 4, kTf32 = 8, kBias = 16, kIn16 = 32, kOut16 = 64;
struct Key {
  enum { kM, kN, kK, kLdA, kLdB, kLdOut, kFlags, kAlignments, kCount };
  std::array<int64_t, kCount> value;

  explicit Key(const Problem& p) : value{p.m, p.n, p.k, p.lda, p.ldb, p.ldout, 0, 0} {
    const MatmulOptions& o = p.options;
    value[kFlags] = (o.transpose_a ? kTransposeA : 0) | (o.transpose_b ? kTransposeB : 0) |
                    (o.accumulate ? kAccumulate : 0) | (o.tf32 ? kTf32 : 0) | (o.bias ? kBias : 0) |
                    (p.dtype == DType::kBF16 ? kIn16 : 0) | (p.out_dtype == DType::kBF16 ? kOut16 : 0);
    for (const uint32_t bytes : {alignment(p.a, p.lda, p.dtype), alignment(p.b, p.ldb, p.dtype),
                                 alignment(p.out, p.ldout, p.out_dtype), alignment(o.bias.ptr, 0, DType::kF32)})
      value[kAlignments] = value[kAlignments] << 16 | bytes;
  }
};

// cuBLASLt's descriptions of a problem. Plain values: they own nothing.
struct Descriptors {
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatrixLayoutOpaque_t a, b, out;

  explicit Descriptors(const Problem& p) {
    const MatmulOptions& o = p.options;
    CUBLAS_CHECK(
        cublasLtMatmulDescInit(&product, o.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t op_a = o.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = o.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, op_b);
    set(CUBLASLT_MATMUL_DESC_TRANSB, op_a);
    if (o.bias) {  // one for each of cuBLASLt's rows, which are columns here
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<const void*>(o.bias.ptr));
    }
    layout(&a, p.dtype, o.transpose_a ? p.k : p.m, o.transpose_a ? p.m : p.k, p.lda);
    layout(&b, p.dtype, o.transpose_b ? p.n : p.k, o.transpose_b ? p.k : p.n, p.ldb);
    layout(&out, p.out_dtype, p.m, p.n, p.ldout);
  }

 private:
  template <class T> void set(cublasLtMatmulDescAttributes_t attribute, T value) {
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(&product, attribute, &value, sizeof value));
  }
  static void layout(cublasLtMatrixLayoutOpaque_t* l, DType t, int64_t rows, int64_t columns, int64_t ld) {
    CUBLAS_CHECK(
        cublasLtMatrixLayoutInit(l, cuda_type(t), static_cast<uint64_t>(columns), static_cast<uint64_t>(rows), ld));
  }
};

// "4096 x 16384 x 2304, bf16 a, bf16 b^T -> f32, bias"
std::string describe(const std::array<int64_t, Key::kCount>& key) {
  const int64_t flags = key[Key::kFlags];
  const std::string in = flags & kIn16 ? "bf16" : flags & kTf32 ? "tf32" : "f32";
  return std::to_string(key[Key::kM]) + " x " + std::to_string(key[Key::kN]) + " x " + std::to_string(key[Key::kK]) +
         ", " + in + " a" + (flags & kTransposeA ? "^T" : "") + " b" + (flags & kTransposeB ? "^T" : "") + " -> " +
         (flags & kOut16 ? "bf16" : "f32") + (flags & kAccumulate ? ", accumulates" : "") +
         (flags & kBias ? ", bias" : "");
}

cublasLtMatmulHeuristicResult_t choose(const CudaState& s, const Problem& p, const Key& key, Descriptors& d) {
  cublasLtMatmulPreferenceOpaque_t preference;
  CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(s.workspace_bytes));
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, kReduction);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.b, p.ldb, p.dtype));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.a, p.lda, p.dtype));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(p.out, p.ldout, p.out_dtype));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(p.out, p.ldout, p.out_dtype));
  cublasLtMatmulHeuristicResult_t best{};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(s.lt, &d.product, &d.b, &d.a, &d.out, &d.out, &preference, 1, &best, &found);
  CHECK(status == CUBLAS_STATUS_SUCCESS && found == 1 && best.state == CUBLAS_STATUS_SUCCESS,
        "matmul: cuBLASLt has no algorithm for " + describe(key.value) + " on this GPU (" +
            cublasLtGetStatusName(status == CUBLAS_STATUS_SUCCESS && found == 1 ? best.state : status) + ")");
  return best;
}

void product(Context& ctx, const Problem& p) {
  CudaState& s = ctx.cuda();
  Descriptors d(p);
  const Key key(p);
  auto it = s.matmul_algorithms.find(key.value);
  if (it == s.matmul_algorithms.end()) it = s.matmul_algorithms.emplace(key.value, choose(s, p, key, d)).first;
  const float one = 1, beta = p.options.accumulate ? 1.0f : 0.0f;
  CUBLAS_CHECK(cublasLtMatmul(s.lt, &d.product, &one, p.b, &d.b, p.a, &d.a, &beta, p.out, &d.out, p.out, &d.out,
                              &it->second.algo, s.workspace, s.workspace_bytes, s.stream));
}

}  // namespace

void matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions o) {
  const Range range("matmul");
  product(ctx, {.m = out.dim[0],
                .n = out.dim[1],
                .k = a.dim[!o.transpose_a],
                .lda = a.dim[1],
                .ldb = b.dim[1],
                .ldout = out.dim[1],
                .dtype = a.dtype,
                .out_dtype = out.dtype,
                .options = o,
                .out = out.ptr,
                .a = a.ptr,
                .b = b.ptr});
}

void linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights) {
  const Range range("linear");
  const int64_t k = x.dim[1], columns = out.dim[1];
  int64_t column = 0;
  for (size_t i = 0; i < weights.size();) {
    Tensor w = weights[i];
    CHECK(w.dtype == x.dtype, "linear: weight " + gsae::describe(w) + " for x " + gsae::describe(x) +
                                  ": on cuda both are of one dtype; load the weights in the dtype that is computed in");
    for (++i; i < weights.size() && weights[i].dtype == w.dtype && weights[i].ptr == w.ptr + w.bytes(); ++i)
      w.dim[0] += weights[i].dim[0];
    if (w.dim[0] > 0)
      product(ctx, {.m = x.dim[0],
                    .n = w.dim[0],
                    .k = k,
                    .lda = k,
                    .ldb = k,
                    .ldout = columns,
                    .dtype = x.dtype,
                    .out_dtype = out.dtype,
                    .options = {.transpose_b = true},
                    .out = out.ptr + static_cast<size_t>(column) * size_of(out.dtype),
                    .a = x.ptr,
                    .b = w.ptr});
    column += w.dim[0];
  }
}

std::vector<std::string> chosen_products(Context& ctx) {
  std::vector<std::string> lines;
  for (const auto& [key, chosen] : ctx.cuda().matmul_algorithms) {
    const auto get = [&, &algo = chosen.algo](cublasLtMatmulAlgoConfigAttributes_t attribute) {
      int32_t value = 0;  // four bytes, or two, of it
      size_t size = 0;
      CUBLAS_CHECK(cublasLtMatmulAlgoConfigGetAttribute(&algo, attribute, nullptr, 0, &size));
      CHECK(size <= sizeof value, "an attribute of a cuBLASLt algorithm");
      CUBLAS_CHECK(cublasLtMatmulAlgoConfigGetAttribute(&algo, attribute, &value, size, &size));
      return std::to_string(value);
    };
    lines.push_back(describe(key) + ": algorithm " + get(CUBLASLT_ALGO_CONFIG_ID) + ", tile " +
                    get(CUBLASLT_ALGO_CONFIG_TILE_ID) + ", stages " + get(CUBLASLT_ALGO_CONFIG_STAGES_ID) +
                    ", cluster " + get(CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID) + ", k in " +
                    get(CUBLASLT_ALGO_CONFIG_SPLITK_NUM) + ", workspace " + std::to_string(chosen.workspaceSize >> 10) +
                    " KiB");
  }
  return lines;
}

}  // namespace gsae::cuda
