#include "kernels/lm_loss.h"

#include "bench/timer.h"
#include "kernels/softcap.h"

namespace gsae::bench {

namespace {

// Args: n, d, V, rows and columns of scratch. Against the product's roof: what is missing is the softmax.
void lm_loss(benchmark::State& state, Context& ctx, DType h_dtype, DType table_dtype) {
  const int64_t n = state.range(0), d = state.range(1), V = state.range(2);
  Operands on(ctx);
  const Tensor nll = on.zeros(DType::kF32, {n}), h = on.random(h_dtype, {n, d}, 0.1f),
               table = on.random(table_dtype, {V, d}), targets = on.tokens(n, V),
               scratch = on.zeros(DType::kF32, {state.range(3), state.range(4)});
  measure(state, ctx, [&] { gsae::lm_loss(ctx, nll, h, table, targets, 30, scratch); });
  set_flop(state, ctx, 2.0 * double(n) * double(d) * double(V), h_dtype);
}

// Args: elements.
void softcap(benchmark::State& state, Context& ctx) {
  Operands on(ctx);
  const Tensor x = on.random(DType::kF32, {state.range(0)}, 20);
  measure(state, ctx, [&] { gsae::softcap(ctx, x, 30); });
  set_bytes(state, ctx, 2.0 * double(x.bytes()));
}

// The demo model; the 2B, on a GPU with chunks of logits that stay in its cache, half as large, and that do not.
void register_all() {
  using State = benchmark::State;
  const DType f32 = DType::kF32, bf16 = DType::kBF16;
  const std::vector<std::vector<int64_t>> cpu{{4096, 192, 4096, 512, 1024}, {256, 2304, 256000, 256, 4096}};
  const std::vector<std::vector<int64_t>> cuda{{4096, 2304, 256000, 4096, 1028},
                                               {4096, 2304, 256000, 4096, 2052},
                                               {4096, 2304, 256000, 4096, 8196},
                                               {4096, 2304, 256000, 1024, 8196}};
  register_op("lm_loss/f32/bf16", [=](State& s, Context& c) { lm_loss(s, c, f32, bf16); }, {.cpu = cpu, .cuda = {}});
  register_op("lm_loss/bf16", [=](State& s, Context& c) { lm_loss(s, c, bf16, bf16); }, {.cpu = cpu, .cuda = cuda});
  register_op("lm_loss/f32", [=](State& s, Context& c) { lm_loss(s, c, f32, f32); },
              {.cpu = {}, .cuda = {{1024, 2304, 256000, 1024, 8196}}});
  register_op("softcap", softcap, {.cpu = {{1 << 24}}, .cuda = {{1 << 28}}});
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  gsae::bench::register_all();
  return gsae::bench::run(argc, argv);
}
