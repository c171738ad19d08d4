#include "tools/model_source.h"

#include <algorithm>
#include <utility>

#include "kernels/memory.h"
#include "kernels/range.h"

namespace gsae {

ModelSource::ModelSource(Arena& arena, const Gemma2& model, int64_t context, int64_t sequences,
                         const std::vector<Place>& places)
    : model_(model),
      places_(places),
      activations_(arena, model, sequences, context),
      tokens_(arena.take("tokens", DType::kI32, {sequences, context})) {}

void ModelSource::open(const TokenStreamOptions& text, const SourcePosition* from) {
  stream_ = from ? std::make_unique<TokenStream>(text, from->text) : std::make_unique<TokenStream>(text);
  open([this](int64_t sequences) { return stream_->next(sequences); });
}

void ModelSource::close() {
  next_ = {};
  stream_.reset();
  graph_ = {};
}

std::vector<int64_t> ModelSource::widths() const {
  std::vector<int64_t> widths;
  for (const Place& p : places_) widths.push_back(model_.site_width(p.site));
  return widths;
}

SourcePosition ModelSource::position() const {
  CHECK(stream_, "the position of a source without text");
  return {.text = stream_->position()};
}

bool ModelSource::fill(Context& ctx, ActivationBuffer& buffer) {
  TokenBatch batch = next_(tokens_.dim[0]);
  if (batch.sequences == 0) return false;
  const Range range("refill");
  const GemmaConfig& c = model_.config();
  std::vector<uint8_t> keep(batch.tokens.size());
  for (size_t i = 0; i < keep.size(); ++i) {
    const int32_t token = batch.tokens[i];
    keep[i] = token != c.bos && token != c.eos && token != c.pad;
  }
  buffer.expect(ctx, keep);
  if (origins_) origins_->add(batch.tokens, buffer.arriving());
  compute(ctx, buffer, batch.tokens);
  return true;
}

// The rows that the buffer expects, from their contexts.
void ModelSource::compute(Context& ctx, ActivationBuffer& buffer, std::vector<int32_t>& host) {
  const int64_t T = tokens_.dim[1], sequences = static_cast<int64_t>(host.size()) / T;
  if (!uploads_) upload_ = Upload(ctx, tokens_.bytes());
  uploads_ = true;
  const Tensor tokens = tokens_.rows(0, sequences);
  upload_.send(ctx, tokens, view(host.data(), {sequences, T}));
  std::vector<Hook> hooks;
  for (size_t i = 0; i < places_.size(); ++i)
    hooks.push_back({places_[i].site, places_[i].layer, false,
                     [&buffer, i](Context& on, Tensor rows) { buffer.write(on, static_cast<int64_t>(i), rows); }});
  // The last batch of the data may be smaller than the one that is recorded.
  if (sequences == tokens_.dim[0]) graph_.run(ctx, [&] { model_.forward(ctx, activations_, tokens, hooks); });
  else model_.forward(ctx, activations_, tokens, hooks);
}

void ModelSource::recompute(Context& ctx, ActivationBuffer& buffer, const RowOrigins::State& rows,
                            std::span<const int32_t> slots) {
  CHECK(origins_, "rows are to be computed again, and their tokens are not kept");
  origins_->restore(rows, slots);
  const int64_t T = tokens_.dim[1], batch = tokens_.dim[0], contexts = static_cast<int64_t>(rows.tokens.size()) / T;
  std::vector<int32_t> slot_of(rows.tokens.size(), -1);
  for (size_t i = 0; i < slots.size(); ++i) slot_of[rows.context[i] * T + rows.position[i]] = slots[i];
  // Always whole batches, as when the rows were computed first, so that the same code computes them: the last is filled
  // up with contexts whose rows go nowhere.
  for (int64_t first = 0; first < contexts; first += batch) {
    std::vector<int32_t> tokens, into;
    for (int64_t c = first; c < first + batch; ++c) {
      const int64_t from = std::min(c, contexts - 1) * T;
      tokens.insert(tokens.end(), rows.tokens.begin() + from, rows.tokens.begin() + from + T);
      if (c < contexts) into.insert(into.end(), slot_of.begin() + from, slot_of.begin() + from + T);
      else into.insert(into.end(), T, -1);
    }
    buffer.expect_at(ctx, into);
    compute(ctx, buffer, tokens);
  }
}

double ModelSource::flops_per_row() const {
  double flops = 0;  // up to the last place
  for (const Place& p : places_)
    flops = std::max(flops, forward_flops_per_token(model_.config(), tokens_.dim[1], p.site, p.layer));
  return flops;
}

double forward_flops_per_token(const GemmaConfig& c, int64_t context, Site site, int64_t layer) {
  const double d = double(c.width), heads = double(c.heads * c.head_width), kv = double(c.kv_heads * c.head_width);
  const double qkv = d * (heads + 2 * kv), out = heads * d, ffn = 3 * d * double(c.ffn);
  double total = 0;
  for (int64_t l = 0; l <= layer; ++l) {
    double weights = qkv + out + ffn;
    if (l == layer) {  // the last one runs only up to its site
      if (site == Site::kPre) break;
      if (site == Site::kAtt) weights = qkv;
      if (site == Site::kAttnOut || site == Site::kMlpIn) weights = qkv + out;
    }
    const double span = c.sliding[l] ? std::min<double>(double(c.window), double(context)) : double(context);
    const double keys = span - span * (span - 1) / (2 * double(context));  // mean number of keys of a query
    total += 2 * weights + 4 * heads * keys;
  }
  return total;
}

}  // namespace gsae
