#include "model/generator.h"

#include <algorithm>

#include "kernels/checkf.h"

namespace gsae {

Generator::Generator(Arena& arena, const Gemma2& model, int64_t sequences, int64_t length, int64_t most)
    : model_(model),
      cache_(arena, model, sequences, length, most),
      prompt_(arena, model, 1, most),
      step_(arena, model, sequences, 1),
      tokens_(arena.take("tokens of a pass", DType::kI32, {std::max(sequences, most)})),
      logits_(arena.take("logits", DType::kF32, {sequences, model.config().vocab})) {}

void Generator::set_hooks(std::vector<Hook> hooks) {
  hooks_ = std::move(hooks);
  graph_ = {};
}

void Generator::send(Context& ctx, int64_t positions, std::span<const int32_t> ids) {
  if (!ready_) {
    upload_ = Upload(ctx, tokens_.bytes());
    readback_ = Readback(ctx, logits_.bytes());
    ready_ = true;
  }
  cache_.begin(ctx, positions);
  const auto n = static_cast<int64_t>(ids.size());
  upload_.send(ctx, tokens_.rows(0, n), view(const_cast<int32_t*>(ids.data()), {n}));
}

void Generator::add(Context& ctx, std::span<const int32_t> ids) {
  const auto n = static_cast<int64_t>(ids.size());
  send(ctx, n, ids);
  model_.forward(ctx, prompt_, cache_, tokens_.rows(0, n).reshape({1, n}), hooks_, logits_.rows(0, 1));
  readback_.request(ctx, logits_.rows(0, 1));
}

void Generator::next(Context& ctx, std::span<const int32_t> ids) {
  const int64_t n = cache_.sequences();
  CHECKF(static_cast<int64_t>(ids.size()) == n && cache_.length() > 0,
         "generate: {} tokens for {} sequences of {} positions", ids.size(), n, cache_.length());
  send(ctx, 1, ids);
  graph_.run(ctx, [&] { model_.forward(ctx, step_, cache_, tokens_.rows(0, n).reshape({n, 1}), hooks_, logits_); });
  readback_.request(ctx, logits_);
}

}  // namespace gsae
