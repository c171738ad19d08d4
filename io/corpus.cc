#include "io/corpus.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "kernels/check.h"

namespace gsae {
namespace {

size_t bytes_of(const Item& item) { return sizeof(Item) + item.text.size() + item.ids.size() * sizeof(int32_t); }

}  // namespace

Corpus::Corpus(const TokenStreamOptions& options, const StopSignal& stop, Start start)
    : options_(options), stop_(stop), start_(start) {
  if (options_.files.empty()) throw Error("no data: name at least one file");
  bool has_documents = false;
  for (const std::string& path : options_.files) {
    auto& tokens = token_files_.emplace_back();
    switch (data_kind(path)) {
      case DataKind::kTokens:
        tokens.emplace(path, options_.token_dtype);
        (tokens->is_stream() ? has_documents : has_rows_) = true;
        if (!tokens->is_stream() && tokens->width() != options_.context)
          throw Error(fmt::format("{} has rows of {} tokens, but the context is {}: use --context {}", path,
                                  tokens->width(), options_.context, tokens->width()));
        break;
      case DataKind::kStandardInput:
        if (std::exchange(has_stdin_, true)) throw Error("- is named twice: standard input can be read once");
        has_text_ = has_documents = true;
        break;
      case DataKind::kText:
      case DataKind::kJsonl:
        open_bytes(path);  // an Error now rather than after hours
        has_text_ = has_documents = true;
    }
  }
  if (has_rows_ && has_documents)
    throw Error("rows of tokens (2-D) cannot be mixed with text or streams of tokens (1-D): use one kind at a time");
}

bool Corpus::next(Item& item) {
  if (!std::exchange(started_, true)) drop_to_start();
  while (!stop_.raised()) {
    if (next_of_epoch(item)) return true;
    // Standard input cannot be read again, and data of which nothing is wanted would be read for ever.
    if (!options_.repeat || has_stdin_ || items_ == 0) return false;
    start_epoch(epoch_ + 1);
  }
  return false;
}

// The order of an epoch depends on the seed and its number alone; within it, on all that was drawn before.
void Corpus::drop_to_start() {
  start_epoch(start_.epoch);
  Item item;
  while (items_ < start_.items && !stop_.raised())
    if (!next_of_epoch(item) && !stop_.raised())
      throw Error(fmt::format(
          "the data have changed since: pass {} over them has {} documents (or rows), but {} of it were used",
          start_.epoch + 1, items_, start_.items));
}

bool Corpus::next_of_epoch(Item& item) {
  if (has_rows_) {
    if (!read_row(item)) return false;
  } else {
    Pooled document;
    if (!draw(document)) return false;
    document.item.continues = document.begin >= 0 && document.file == last_file_ && document.begin == last_end_;
    last_file_ = document.file;
    last_end_ = document.end;
    item = std::move(document.item);
  }
  item.epoch = epoch_;
  item.skipped = skipped_;
  ++items_;
  return true;
}

void Corpus::start_epoch(int64_t epoch) {
  epoch_ = epoch;
  items_ = 0;
  random_ = Random(options_.seed, Random::kShuffleDocuments, static_cast<uint64_t>(epoch_));
  drawn_ = 0;
  const auto shuffle = [&](auto& order) {  // Fisher & Yates
    if (!options_.shuffle) return;
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
  };
  if (has_rows_) {
    row_order_.clear();
    for (uint32_t f = 0; f < token_files_.size(); ++f)
      for (int64_t r = 0; r < token_files_[f]->rows(); ++r) row_order_.emplace_back(f, r);
    row_ = 0;
    shuffle(row_order_);
    return;
  }
  file_order_.resize(options_.files.size());
  std::iota(file_order_.begin(), file_order_.end(), size_t{0});
  shuffle(file_order_);
  file_ = 0;
  last_end_ = -1;
}

bool Corpus::read_row(Item& item) {
  while (row_ < row_order_.size() && !stop_.raised()) {
    const auto [file, row] = row_order_[row_++];
    item = {};
    item.ids.resize(static_cast<size_t>(options_.context));
    token_files_[file]->read(item.ids.data(), row, 0, options_.context, options_.vocab_size);
    if (wanted(item)) return true;
  }
  return false;
}

// Keeps the pool as full as it may be, and takes any of it.
bool Corpus::draw(Pooled& drawn) {
  if (!options_.shuffle) return read_wanted(drawn);
  Pooled document;
  while (pool_bytes_ < options_.shuffle_pool_bytes && read_wanted(document)) {
    pool_bytes_ += bytes_of(document.item);
    pool_.push_back(std::move(document));
  }
  if (pool_.empty()) return false;
  Pooled& chosen = pool_[random_below(pool_.size())];
  drawn = std::move(chosen);
  if (&chosen != &pool_.back()) chosen = std::move(pool_.back());
  pool_.pop_back();
  pool_bytes_ -= bytes_of(drawn.item);
  return true;
}

bool Corpus::read_wanted(Pooled& document) {
  while (!stop_.raised() && read(document))
    if (wanted(document.item)) return true;
  return false;
}

bool Corpus::read(Pooled& document) {
  for (; file_ < file_order_.size() && !stop_.raised(); ++file_) {
    const size_t f = document.file = file_order_[file_];
    document.item = {};
    if (token_files_[f]) {
      if (!stream_) stream_.emplace(*token_files_[f], options_.bos, options_.eos, options_.vocab_size);
      document.begin = stream_->position();
      const bool more = stream_->next(document.item.ids);
      document.end = stream_->position();
      if (more) return true;
      stream_.reset();
      continue;
    }
    document.begin = document.end = -1;
    if (!reader_) {
      reader_.emplace(
          options_.files[f],
          DocumentOptions{.text_field = options_.text_field, .skip_bad = options_.skip_bad, .stop = &stop_});
      skipped_of_file_ = 0;
    }
    bool more = true;
    do more = reader_->next(document.item.text);
    while (more && document.item.text.empty());  // nothing to train on
    if (const Skipped& skipped = reader_->skipped(); epoch_ == 0 && skipped.count > skipped_of_file_) {
      if (skipped_.count == 0) skipped_.first = skipped.first;
      skipped_.count += skipped.count - std::exchange(skipped_of_file_, skipped.count);
    }
    if (more) return true;
    reader_.reset();
  }
  return false;
}

bool Corpus::wanted(const Item& item) const {
  if (options_.split == TokenStreamOptions::Split::kAll) return true;
  const uint64_t hash = item.ids.empty() ? XXH3_64bits(item.text.data(), item.text.size())
                                         : XXH3_64bits(item.ids.data(), item.ids.size() * sizeof(int32_t));
  const bool held_out = static_cast<double>(hash >> 11) * 0x1p-53 < options_.eval_fraction;
  return held_out == (options_.split == TokenStreamOptions::Split::kHeldOut);
}

}  // namespace gsae
