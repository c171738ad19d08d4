// Text, token by token: a token reads every weight once, so that the roof is the memory's bandwidth.

#include <algorithm>
#include <map>

#include "bench/timer.h"
#include "io/hub.h"
#include "model/generator.h"
#include "tools/lay_out.h"

namespace gsae::bench {
namespace {

// One token for each of `sequences` behind `past` of them. Items are tokens; % of roof: bytes of weights, and of what
// the cache holds, that a step reads, against a large copy.
void decode(benchmark::State& state, Context& ctx, const Gemma2& model, int64_t sequences, int64_t past) {
  constexpr int64_t kMost = 512, kSteps = 4096;  // of the prompt at a time; more tokens than are measured
  const GemmaConfig& c = model.config();
  const int64_t length = std::min(c.max_positions, past + kSteps);
  // As many as it takes, one after the other: a model with few positions is full too soon.
  std::vector<Buffer> memory(static_cast<size_t>((kSteps + length - past - 1) / (length - past)));
  std::vector<std::unique_ptr<Generator>> generators;
  std::vector<int32_t> ids(static_cast<size_t>(std::max(past, sequences)));
  for (size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>(3 + i * 7919 % static_cast<size_t>(c.vocab - 3));
  const auto next = [&](Generator& g) { g.next(ctx, std::span(ids).first(static_cast<size_t>(sequences))); };
  for (Buffer& buffer : memory) {
    auto& g = *generators.emplace_back(
        allocate<Generator>(ctx.device(), buffer, model, sequences, length, std::min(past, kMost)));
    for (int64_t at = 0; at < past; at += kMost) {
      const auto n = static_cast<size_t>(std::min(kMost, past - at));
      g.add(ctx, std::span(ids).subspan(static_cast<size_t>(at), n));
    }
    g.fork(ctx);
    for (int i = 0; i < 3; ++i) next(g);  // records the graph
  }
  size_t at = 0;
  measure(state, ctx, [&] {
    while (at < generators.size() && generators[at]->length() >= length) ++at;
    if (at < generators.size()) next(*generators[at]);
  });
  if (at == generators.size()) return state.SkipWithError("more steps than the caches have room for");
  state.SetItemsProcessed(sequences * state.iterations());
  double keys = 0;
  for (int64_t layer = 0; layer < c.layers; ++layer) keys += double(c.sliding[layer] ? std::min(c.window, past) : past);
  const auto& w = model.weights();
  set_bytes(state, ctx,
            double(w.mapped_bytes + w.owned_bytes) +
                2 * keys * double(sequences * c.kv_heads * c.head_width) * double(size_of(model.product())));
}

// Args: sequences, past. The bundled model, whose weights are in a file.
void decode_demo(benchmark::State& state, Context& ctx, DType compute) {
  const Gemma2 model(ctx, demo_folder() + "/model", compute);
  decode(state, ctx, model, state.range(0), state.range(1));
}

// Four layers of the 2B's shape with all of its vocabulary, random: 1.8 GB, what no cache holds.
void decode_2b(benchmark::State& state, Context& ctx) {
  GemmaConfig shape = named_shape("2b");
  shape.layers = 4, shape.sliding.resize(4);
  static std::map<Device, std::unique_ptr<Gemma2>> models;  // seconds to make
  auto& model = models[ctx.device()];
  if (!model) model = std::make_unique<Gemma2>(ctx, shape, DType::kBF16, 1);
  decode(state, ctx, *model, state.range(0), state.range(1));
}

}  // namespace
}  // namespace gsae::bench

int main(int argc, char** argv) {
  using namespace gsae;
  using namespace gsae::bench;
  for (const DType t : {DType::kF32, DType::kBF16})
    register_op(std::string("decode_demo_") + name(t),
                [t](benchmark::State& state, Context& ctx) { decode_demo(state, ctx, t); },
                {.cpu = {{1, 100}, {4, 100}}, .cuda = {{1, 100}, {4, 100}}});
  register_op("decode_2b_4_layers", decode_2b,
              {.cpu = {{1, 100}, {8, 100}, {1, 4000}}, .cuda = {{1, 100}, {8, 100}, {1, 4000}}});
  return run(argc, argv);
}
