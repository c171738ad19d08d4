#include "tools/context_pass.h"

#include <algorithm>
#include <limits>

#include "kernels/checkf.h"

namespace gsae {

KeptContexts KeptContexts::read(TokenStream& stream, int64_t wanted, int64_t at_a_time) {
  KeptContexts all;
  while (all.count < wanted) {
    const TokenBatch batch = stream.next(std::min(at_a_time, wanted - all.count));
    if (batch.sequences == 0) break;
    all.count += batch.sequences, all.length = batch.context;
    all.tokens.insert(all.tokens.end(), batch.tokens.begin(), batch.tokens.end());
  }
  return all;
}

ContextPass::Memory::Memory(Arena& arena, const Gemma2& model, int64_t B, int64_t T)
    : activations(arena, model, B, T),
      tokens(arena.take("tokens", DType::kI32, {B * T})),
      index(arena.take("counted rows", DType::kI32, {B * T})),
      row(arena.take("numbers of rows", DType::kI32, {B * T})) {}

void ContextPass::load(Context& ctx, std::span<const int64_t> which) {
  const GemmaConfig& c = model_.config();
  const int64_t T = contexts_.length;
  tokens_.clear(), place_.clear(), index_.clear(), row_.clear();
  for (const int64_t context : which) {
    const auto tokens = contexts_.context(context);
    for (int64_t t = 0; t < T; ++t) {
      const int32_t token = tokens[static_cast<size_t>(t)];
      const bool counts = token != c.bos && token != c.eos && token != c.pad;
      place_.push_back(counts ? static_cast<int32_t>(index_.size()) : -1);
      if (counts) {
        index_.push_back(static_cast<int32_t>(tokens_.size()));
        row_.push_back(static_cast<int32_t>(context * T + t));
      }
      tokens_.push_back(token);
    }
  }
  const auto upload = [&](Tensor to, std::vector<int32_t>& from) {
    const auto n = static_cast<int64_t>(from.size());
    if (n > 0) copy(ctx, to.rows(0, n), view(from.data(), {n}));
  };
  upload(memory_.tokens, tokens_);
  upload(memory_.index, index_);
  upload(memory_.row, row_);
  ctx.synchronize();
}

void ContextPass::run(Context& ctx, std::span<const int64_t> which, std::span<const Tap> taps,
                      const std::function<void(int64_t)>& done) {
  CHECKF(contexts_.count * contexts_.length <= std::numeric_limits<int32_t>::max(), "ContextPass: {} tokens",
         contexts_.count * contexts_.length);
  const auto B = static_cast<size_t>(memory_.activations.B);
  for (size_t begin = 0; begin < which.size(); begin += B) {
    const auto part = which.subspan(begin, std::min(B, which.size() - begin));
    load(ctx, part);
    const auto n = static_cast<int64_t>(index_.size()), rows = static_cast<int64_t>(tokens_.size());
    if (n > 0) {
      const Batch batch{part, place_, memory_.index.rows(0, n), memory_.row.rows(0, n)};
      std::vector<Hook> hooks;
      for (const Tap& tap : taps)
        hooks.push_back({.site = tap.site, .layer = tap.layer, .edits = false, .call = [&](Context& c, Tensor site) {
                           tap.call(c, site, batch);
                         }});
      const auto sequences = static_cast<int64_t>(part.size());
      model_.forward(ctx, memory_.activations, memory_.tokens.rows(0, rows).reshape({sequences, contexts_.length}),
                     hooks);
    }
    ctx.synchronize();
    done(static_cast<int64_t>(begin + part.size()));
  }
}

}  // namespace gsae
