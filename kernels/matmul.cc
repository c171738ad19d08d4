#include "kernels/matmul.h"

#include "kernels/checkf.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "kernels/dispatch.h"
#include "kernels/few_rows.h"
#include "kernels/parallel.h"

namespace gsae {

void matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions o) {
  CHECKF(a.rank == 2 && b.rank == 2 && a.dtype == b.dtype, "matmul: a {} and b {} must be matrices of one dtype", a, b);
  const int64_t m = a.dim[o.transpose_a], k = a.dim[!o.transpose_a];
  const int64_t n = b.dim[!o.transpose_b], bk = b.dim[o.transpose_b];
  CHECKF(k == bk && k > 0, "matmul: the inner dimensions of a {} and b {} differ or are empty", a, b);
  CHECKF(out.is({m, n}) && out.dtype == DType::kF32, "matmul: out {} must be f32[{}, {}]", out, m, n);
  if (o.bias) {
    CHECKF(o.bias.is({n}) && o.bias.dtype == DType::kF32, "matmul: bias {} must be f32[{}]", o.bias, n);
    CHECKF(!o.accumulate, "matmul: a bias, and out {} accumulates: add it once, elsewhere", out);
  }
  CHECKF(!o.tf32 || (ctx.device() == Device::kCuda && a.dtype == DType::kF32),
         "matmul: tf32 is for f32 operands on cuda, a is {}", a);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), matmul(ctx, out, a, b, o));
}

void linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights) {
  // on cpu a quarter of the workspace holds a row of x, half of it one of a weight, the rest results yet to be rounded
  constexpr int64_t kWidest = Context::kWorkspaceBytes / 4 / sizeof(float);
  CHECKF(x.rank == 2 && x.dim[1] > 0 && x.dim[1] <= kWidest, "linear: x {} must be (n, k), k in [1, {}]", x, kWidest);
  int64_t rows = 0;
  for (const Tensor& w : weights) {
    CHECKF(w.rank == 2 && w.dim[1] == x.dim[1], "linear: weight {} must be (rows, {})", w, x.dim[1]);
    rows += w.dim[0];
  }
  const bool typed = out.dtype == DType::kF32 || (out.dtype == DType::kBF16 && x.dtype == DType::kBF16);
  CHECKF(out.is({x.dim[0], rows}) && typed, "linear: out {} must be f32[{}, {}], or bf16 if x {} is", out, x.dim[0],
         rows, x);
  if (out.size() == 0) return;
  GSAE_DISPATCH(ctx.device(), linear(ctx, out, x, weights));
}

std::vector<std::string> chosen_products(Context& ctx) { return GSAE_DISPATCH(ctx.device(), chosen_products(ctx)); }
std::vector<std::string> cpu::chosen_products(Context&) { return {}; }

namespace {

using dnnl::memory;

memory::data_type dnnl_type(DType t) { return t == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32; }

// A product whose operands may be parts of wider matrices: ld is the distance between stored rows.
struct Problem {
  int64_t m, n, k, lda, ldb, ldout;
  DType dtype, out_dtype;
  MatmulOptions options;
};

CpuState::Product compile(CpuState& s, const Problem& p) {
  const auto strides = [](bool transposed, int64_t ld) {
    return transposed ? memory::dims{1, ld} : memory::dims{ld, 1};
  };
  const memory::desc a({p.m, p.k}, dnnl_type(p.dtype), strides(p.options.transpose_a, p.lda));
  const memory::desc b({p.k, p.n}, dnnl_type(p.dtype), strides(p.options.transpose_b, p.ldb));
  const memory::desc out({p.m, p.n}, dnnl_type(p.out_dtype), memory::dims{p.ldout, 1});
  const memory::desc bias =
      p.options.bias ? memory::desc({1, p.n}, memory::data_type::f32, memory::dims{p.n, 1}) : memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (p.options.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
#if DNNL_VERSION_MAJOR >= 3
  const dnnl::matmul::primitive_desc pd(s.engine, a, b, bias, out, attributes);
#else
  const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(a, b, bias, out), attributes, s.engine);
#endif
  return {dnnl::matmul(pd), a, b, bias, out, pd.scratchpad_desc()};
}

void product(Context& ctx, void* out, const std::byte* a, const std::byte* b, const Problem& p) {
  CpuState& s = ctx.cpu();
  const int64_t flags = p.options.transpose_a | p.options.transpose_b << 1 | p.options.accumulate << 2 |
                        (p.dtype == DType::kBF16) << 3 | (p.out_dtype == DType::kBF16) << 4 | bool(p.options.bias) << 5;
  const std::array<int64_t, 7> key{p.m, p.n, p.k, p.lda, p.ldb, p.ldout, flags};
  auto it = s.products.find(key);
  if (it == s.products.end()) {
    it = s.products.emplace(key, compile(s, p)).first;
    const size_t bytes = it->second.scratchpad.get_size();
    if (bytes > s.scratchpad.size()) s.scratchpad = Buffer(Device::kCpu, bytes);
  }
  const CpuState::Product& product = it->second;
  const auto wrap = [&](const memory::desc& d, const void* ptr) { return memory(d, s.engine, const_cast<void*>(ptr)); };
  std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, wrap(product.a, a)},
                                            {DNNL_ARG_WEIGHTS, wrap(product.b, b)},
                                            {DNNL_ARG_DST, wrap(product.out, out)},
                                            {DNNL_ARG_SCRATCHPAD, wrap(product.scratchpad, s.scratchpad.data())}};
  if (p.options.bias) arguments.emplace(DNNL_ARG_BIAS, wrap(product.bias, p.options.bias.ptr));
  product.primitive.execute(s.stream, arguments);
  s.stream.wait();
}

// out = x rounded to bf16, kept in f32.
void round_to_bf16(float* out, const float* x, int64_t n) {
  parallel_for(n, 1 << 15, [&](int64_t begin, int64_t end) {
    float* to = out;
    const float* from = x;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) to[i] = to_float(to_bf16(from[i]));
  });
}

// Where the processor has no bf16 product, both operands are widened along k in panels that fit the
// workspace. Rare enough (old laptops) for plain code.
void widened_matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions o) {
  const int64_t m = out.dim[0], n = out.dim[1], k = a.dim[!o.transpose_a];
  const int64_t room = static_cast<int64_t>(Context::kWorkspaceBytes / sizeof(float));
  const int64_t tile_m = std::min<int64_t>(m, 512), tile_n = std::min<int64_t>(n, 4096);
  const int64_t tile_k = std::clamp<int64_t>(room / (tile_m + tile_n), 1, k);
  float* wa = reinterpret_cast<float*>(ctx.cpu().workspace.data());
  float* wb = wa + tile_m * tile_k;
  // rows [r0, r1) x columns [c0, c1) of a stored matrix, widened and packed
  const auto widen = [](float* dst, Tensor src, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    const BF16* from = src.data<BF16>();
    const int64_t ld = src.dim[1], width = c1 - c0;
    parallel_for(r1 - r0, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) convert(dst + r * width, from + (r0 + r) * ld + c0, width);
    });
  };
  for (int64_t j = 0; j < n; j += tile_n) {
    const int64_t nj = std::min(tile_n, n - j);
    for (int64_t l = 0; l < k; l += tile_k) {
      const int64_t kl = std::min(tile_k, k - l);
      if (o.transpose_b) widen(wb, b, j, j + nj, l, l + kl);
      else widen(wb, b, l, l + kl, j, j + nj);
      for (int64_t i = 0; i < m; i += tile_m) {
        const int64_t mi = std::min(tile_m, m - i);
        if (o.transpose_a) widen(wa, a, l, l + kl, i, i + mi);
        else widen(wa, a, i, i + mi, l, l + kl);
        MatmulOptions part = o;
        part.accumulate = o.accumulate || l > 0;
        if (l > 0) part.bias = {};
        if (part.bias) part.bias.ptr += j * sizeof(float);
        product(ctx, out.data<float>() + i * n + j, reinterpret_cast<std::byte*>(wa), reinterpret_cast<std::byte*>(wb),
                {mi, nj, kl, o.transpose_a ? mi : kl, o.transpose_b ? kl : nj, n, DType::kF32, DType::kF32, part});
      }
    }
  }
}

}  // namespace

// Each of oneDNN's instruction sets has the bits of those it contains: a list of names would miss the next one.
bool cpu::has_bf16_products() {
  const auto bits = [](dnnl::cpu_isa isa) { return static_cast<unsigned>(isa); };
  const unsigned needed = bits(dnnl::cpu_isa::avx512_core_bf16);
  return (bits(dnnl::get_effective_cpu_isa()) & needed) == needed;
}

void cpu::matmul(Context& ctx, Tensor out, Tensor a, Tensor b, MatmulOptions o) {
  if (a.dtype == DType::kBF16 && !has_bf16_products()) return widened_matmul(ctx, out, a, b, o);
  product(ctx, out.data<float>(), a.ptr, b.ptr,
          {out.dim[0], out.dim[1], a.dim[!o.transpose_a], a.dim[1], b.dim[1], out.dim[1], a.dtype, DType::kF32, o});
}

void cpu::linear(Context& ctx, Tensor out, Tensor x, std::span<const Tensor> weights) {
  if (has_few_rows(x)) return linear_few_rows(ctx, out, x, weights);
  const int64_t n = x.dim[0], k = x.dim[1], columns = out.dim[1];
  const bool narrow = x.dtype == DType::kBF16 && has_bf16_products();
  const DType dtype = narrow ? DType::kBF16 : DType::kF32;
  std::byte* panel = ctx.cpu().workspace.data();
  size_t room = Context::kWorkspaceBytes;

  // out as the product writes it: itself, or in f32 at the end of the workspace and rounded from there
  const bool round_out = out.dtype == DType::kBF16 && !narrow;
  constexpr int64_t kOutRoom = Context::kWorkspaceBytes / 4 / sizeof(float);
  if (round_out) room -= kOutRoom * sizeof(float);
  float* wide_out = reinterpret_cast<float*>(panel + room);

  // x as the product takes it: itself, or widened block by block at the front of the workspace
  const bool widen_x = x.dtype == DType::kBF16 && !narrow;
  int64_t block = n;
  if (widen_x) {
    block = std::clamp<int64_t>(static_cast<int64_t>(room / (round_out ? 3 : 2) / (k * sizeof(float))), 1, n);
    panel += block * k * sizeof(float);
    room -= block * k * sizeof(float);
  }
  int64_t panel_rows = std::max<int64_t>(1, static_cast<int64_t>(room / (k * size_of(dtype))));
  if (round_out) panel_rows = std::clamp<int64_t>(kOutRoom / block, 1, panel_rows);

  for (int64_t i = 0; i < n; i += block) {
    const Tensor xi = x.rows(i, std::min(n, i + block));
    const std::byte* a = xi.ptr;
    if (widen_x) {
      Tensor wide = view(reinterpret_cast<float*>(ctx.cpu().workspace.data()), {xi.dim[0], k});
      cpu::convert(ctx, wide, xi);
      a = wide.ptr;
    }
    int64_t column = 0;
    for (const Tensor& w : weights) {
      // A product in bf16 that is computed in f32 still takes its operands in bf16.
      const bool round = widen_x && w.dtype == DType::kF32, whole = w.dtype == dtype && !round;
      const int64_t step = whole ? w.dim[0] : panel_rows;
      for (int64_t r = 0; r < w.dim[0]; r += step) {
        Tensor part = w.rows(r, std::min(w.dim[0], r + step));
        if (!whole) {
          Tensor converted = part;
          converted.ptr = panel;
          converted.dtype = dtype;
          if (round) round_to_bf16(converted.data<float>(), part.data<float>(), part.size());
          else cpu::convert(ctx, converted, part);
          part = converted;
        }
        const int64_t first = i * columns + column + r, rows = part.dim[0];
        Problem p{xi.dim[0], rows, k, k, k, columns, dtype, out.dtype, {.transpose_b = true}};
        if (round_out) p.ldout = rows, p.out_dtype = DType::kF32;
        product(ctx, round_out ? static_cast<void*>(wide_out) : out.ptr + first * size_of(out.dtype), a, part.ptr, p);
        if (!round_out) continue;
        BF16* to = out.data<BF16>() + first;
        parallel_for(xi.dim[0], 16, [&](int64_t begin, int64_t end) {
          for (int64_t row = begin; row < end; ++row) convert(to + row * columns, wide_out + row * rows, rows);
        });
      }
      column += w.dim[0];
    }
  }
}

}  // namespace gsae
