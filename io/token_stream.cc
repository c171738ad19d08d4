#include "io/token_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "io/corpus.h"
#include "io/encode_pipeline.h"
#include "io/packer.h"
#include "io/stop_signal.h"
#include "io/tokenizer.h"
#include "kernels/checkf.h"

namespace gsae {

struct TokenStream::State {
  explicit State(TokenStreamOptions o)
      : options(std::move(o)), corpus(options, stop), packer(options.context, options.bos) {
    if (corpus.has_text()) tokenizer.emplace(options.tokenizer);
    if (tokenizer && options.vocab_size > 0 && tokenizer->size() > options.vocab_size)
      throw Error(fmt::format("{} has {} pieces, but the model's vocabulary is {}: it is another model's tokenizer",
                              options.tokenizer, tokenizer->size(), options.vocab_size));
    pipeline.emplace([this](Item& item) { return corpus.next(item); }, tokenizer ? &*tokenizer : nullptr,
                     options.threads, stop);
  }

  // Reads on until `packed` has a context more; false at the end.
  bool pack_more() {
    const size_t before = packed.size();
    Item item;
    while (packed.size() == before) {
      if (ended) return false;
      if (!pipeline->next(item)) {
        ended = true;
        // the reading thread has ended
        statistics.skipped = corpus.skipped().count;
        statistics.first_skipped = corpus.skipped().first;
        return false;
      }
      if (item.epoch != statistics.epoch) {
        ended = std::exchange(packed_of_epoch, 0) == 0;  // no other order would make a context of it
        if (ended) return false;
        statistics.epoch = item.epoch;
        packer.reset();
      }
      add(item);
    }
    packed_of_epoch += packed.size() - before;
    return true;
  }

  void add(const Item& item) {
    ++statistics.documents;
    statistics.tokens += static_cast<int64_t>(item.ids.size());
    if (item.skipped.count > statistics.skipped) {
      statistics.skipped = item.skipped.count;
      statistics.first_skipped = item.skipped.first;
    }
    if (corpus.has_rows()) {
      packed.insert(packed.end(), item.ids.begin(), item.ids.end());
      return;
    }
    if (!item.continues && (item.ids.empty() || item.ids[0] != options.bos)) {
      packer.add(packed, &options.bos, 1);
      ++statistics.tokens;
    }
    packer.add(packed, item.ids.data(), item.ids.size());
  }

  TokenStreamOptions options;
  StopSignal stop;
  Corpus corpus;
  std::optional<Tokenizer> tokenizer;
  Packer packer;
  std::vector<int32_t> packed;  // contexts, of which the first
  size_t handed_out = 0;        // tokens have been handed out
  size_t packed_of_epoch = 0;   // tokens
  bool ended = false;
  Statistics statistics;
  std::optional<EncodePipeline> pipeline;  // the last, so that its threads end before what they use
};

TokenStream::TokenStream(TokenStreamOptions options) {
  CHECKF(options.context >= 2, "a context of {} tokens: it must hold BOS and at least one more", options.context);
  CHECKF(options.eval_fraction >= 0 && options.eval_fraction <= 1, "eval_fraction {}: must be from 0 to 1",
         options.eval_fraction);
  state_ = std::make_unique<State>(std::move(options));
}

TokenStream::~TokenStream() = default;

TokenBatch TokenStream::next(int64_t sequences) {
  CHECKF(sequences >= 0, "{} sequences asked for", sequences);
  const auto context = static_cast<size_t>(state_->options.context);
  std::vector<int32_t>& packed = state_->packed;
  const size_t wanted = static_cast<size_t>(sequences) * context;
  size_t& handed_out = state_->handed_out;
  if (packed.size() - handed_out < wanted) {  // only then: a long document packs to many batches
    packed.erase(packed.begin(), packed.begin() + static_cast<ptrdiff_t>(std::exchange(handed_out, 0)));
    while (packed.size() < wanted && state_->pack_more()) {}
  }
  const auto begin = packed.begin() + static_cast<ptrdiff_t>(handed_out);
  const auto end = begin + static_cast<ptrdiff_t>(std::min(wanted, packed.size() - handed_out));
  TokenBatch batch{
      .sequences = (end - begin) / state_->options.context, .context = state_->options.context, .tokens = {begin, end}};
  handed_out += batch.tokens.size();
  state_->statistics.contexts += batch.sequences;
  return batch;
}

TokenStream::Statistics TokenStream::statistics() const { return state_->statistics; }

}  // namespace gsae
