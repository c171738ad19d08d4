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
namespace {

void check(const TokenStreamOptions& options) {
  CHECKF(options.context >= 2, "a context of {} tokens: it must hold BOS and at least one more", options.context);
  CHECKF(options.eval_fraction >= 0 && options.eval_fraction <= 1, "eval_fraction {}: must be from 0 to 1",
         options.eval_fraction);
}

void check(const TokenStream::Position& p, const TokenStreamOptions& options) {
  if (std::find(options.files.begin(), options.files.end(), "-") != options.files.end())
    throw Error("standard input cannot be read again: a stream of it cannot go on from a position");
  const auto require = [](bool good, const std::string& what) {
    if (!good) throw Error("no position of these data with these options: " + what);
  };
  const auto count = [&](const char* name, int64_t n) {
    require(n >= 0 && n < int64_t{1} << 60, fmt::format("{} is {}", name, n));  // nothing overflows from there
  };
  const TokenStream::Statistics& s = p.statistics;
  count("documents", s.documents);
  count("tokens", s.tokens);
  count("skipped", s.skipped);
  count("epoch", s.epoch);
  count("contexts", s.contexts);
  count("items", p.items);
  count("packed_of_epoch", p.packed_of_epoch);
  require(p.items <= s.documents, fmt::format("{} items of {} documents", p.items, s.documents));
  const auto context = static_cast<size_t>(options.context);
  require(p.current.size() < context, fmt::format("{} tokens of a context of {}", p.current.size(), context));
  require(p.current.empty() || p.current[0] == options.bos, "a context that does not begin with BOS");
  require(p.packed.size() % context == 0 && p.packed_of_epoch % options.context == 0,
          fmt::format("{} and {} tokens packed in contexts of {}", p.packed.size(), p.packed_of_epoch, context));
  for (const auto* ids : {&p.current, &p.packed})
    for (const int32_t id : *ids)
      require(id >= 0 && (options.vocab_size == 0 || id < options.vocab_size),
              fmt::format("the id {} is outside the vocabulary of {}", id, options.vocab_size));
}

}  // namespace

struct TokenStream::State {
  State(TokenStreamOptions o, const Position& from)
      : options(std::move(o)),
        corpus(options, stop, {from.statistics.epoch, from.items}),
        packer(options.context, options.bos, from.current),
        packed(from.packed),
        items(from.items),
        packed_of_epoch(from.packed_of_epoch),
        ended(from.ended),
        statistics(from.statistics) {
    if (corpus.has_rows() && !from.current.empty())
      throw Error("no position of these data with these options: rows of tokens leave no context incomplete");
    if (corpus.has_text()) tokenizer.emplace(options.tokenizer);
    if (tokenizer && options.vocab_size > 0 && tokenizer->size() > options.vocab_size)
      throw Error(fmt::format("{} has {} pieces, but the model's vocabulary is {}: it is another model's tokenizer",
                              options.tokenizer, tokenizer->size(), options.vocab_size));
    pipeline.emplace([this, done = from.ended](Item& item) { return !done && corpus.next(item); },
                     tokenizer ? &*tokenizer : nullptr, options.threads, stop);
  }

  // Reads on until `packed` has a context more; false at the end.
  bool pack_more() {
    const size_t before = packed.size();
    Item item;
    while (packed.size() == before) {
      if (ended) return false;
      if (!pipeline->next(item)) {
        ended = true;
        count(corpus.skipped());  // the reading thread has ended
        return false;
      }
      if (item.epoch != statistics.epoch) {
        ended = packed_of_epoch == 0;  // no other order would make a context of it
        if (ended) return false;
        packed_of_epoch = items = 0;
        statistics.epoch = item.epoch;
        packer.reset();
      }
      add(item);
    }
    packed_of_epoch += static_cast<int64_t>(packed.size() - before);
    return true;
  }

  // What was skipped before a start within the first epoch is counted as it is read again; before one in a later epoch
  // it is not read.
  void count(const Skipped& skipped) {
    if (skipped.count <= statistics.skipped) return;
    statistics.skipped = skipped.count;
    statistics.first_skipped = skipped.first;
  }

  void add(const Item& item) {
    ++items;
    ++statistics.documents;
    statistics.tokens += static_cast<int64_t>(item.ids.size());
    count(item.skipped);
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
  int64_t items;                // as in Position
  int64_t packed_of_epoch;
  bool ended;
  Statistics statistics;
  std::optional<EncodePipeline> pipeline;  // the last, so that its threads end before what they use
};

TokenStream::TokenStream(TokenStreamOptions options) {
  check(options);
  state_ = std::make_unique<State>(std::move(options), Position{});
}

TokenStream::TokenStream(TokenStreamOptions options, const Position& from) {
  check(options);
  check(from, options);
  state_ = std::make_unique<State>(std::move(options), from);
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

TokenStream::Position TokenStream::position() const {
  const State& s = *state_;
  return {.statistics = s.statistics,
          .items = s.items,
          .packed_of_epoch = s.packed_of_epoch,
          .ended = s.ended,
          .current = s.packer.current(),
          .packed = {s.packed.begin() + static_cast<ptrdiff_t>(s.handed_out), s.packed.end()}};
}

}  // namespace gsae
