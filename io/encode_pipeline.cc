#include "io/encode_pipeline.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace gsae {
namespace {

constexpr size_t kBatchBytes = size_t{64} << 10;
constexpr size_t kBytesAhead = size_t{4} << 20;  // read and not yet taken; or one batch, if that is larger

}  // namespace

EncodePipeline::EncodePipeline(std::function<bool(Item&)> source, const Tokenizer* tokenizer, int threads,
                               StopSignal& stop)
    : tokenizer_(tokenizer), stop_(stop) {
  CHECK(threads >= 1, "at least one thread must encode");
  threads_.emplace_back([this, source = std::move(source)] { read(source); });
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { encode(); });
}

EncodePipeline::~EncodePipeline() {
  {
    const std::lock_guard lock(mutex_);  // else a thread between its check and its wait would miss the call
    stop_.raise();
  }
  space_.notify_all();
  work_.notify_all();
  for (std::thread& t : threads_) t.join();
}

void EncodePipeline::read(const std::function<bool(Item&)>& source) {
  bool more = true;
  while (more) {
    auto batch = std::make_shared<Batch>();
    try {
      Item item;
      while (batch->bytes < kBatchBytes && (more = source(item))) {
        batch->bytes += sizeof(Item) + item.text.size() + item.ids.size() * sizeof(int32_t);
        batch->items.push_back(std::move(item));
        item = {};
      }
    } catch (...) {
      batch->error = std::current_exception();
      more = false;
    }
    if (!push(std::move(batch))) return;
  }
  const std::lock_guard lock(mutex_);
  read_all_ = true;
  work_.notify_all();
  done_.notify_all();
}

// Waits for room; false when stopped.
bool EncodePipeline::push(std::shared_ptr<Batch> batch) {
  std::unique_lock lock(mutex_);
  space_.wait(lock, [&] { return stop_.raised() || ordered_.empty() || bytes_ahead_ + batch->bytes <= kBytesAhead; });
  if (stop_.raised()) return false;
  bytes_ahead_ += batch->bytes;
  ordered_.push_back(batch);
  unencoded_.push_back(std::move(batch));
  work_.notify_one();
  return true;
}

void EncodePipeline::encode() {
  std::optional<WordEncoder> encoder;
  if (tokenizer_) encoder.emplace(*tokenizer_);
  while (true) {
    std::shared_ptr<Batch> batch;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] { return stop_.raised() || !unencoded_.empty() || read_all_; });
      if (stop_.raised() || unencoded_.empty()) return;
      batch = std::move(unencoded_.front());
      unencoded_.pop_front();
    }
    size_t good = 0;
    try {
      for (; good < batch->items.size() && !stop_.raised(); ++good) {
        Item& item = batch->items[good];
        if (item.text.empty()) continue;
        CHECK(encoder, "text without a tokenizer");
        encoder->encode(item.ids, item.text);
        item.text = {};
      }
    } catch (...) {
      batch->items.resize(good);
      batch->error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    batch->encoded = true;
    done_.notify_one();
  }
}

bool EncodePipeline::next(Item& item) {
  while (true) {
    if (current_ && at_ < current_->items.size()) {
      item = std::move(current_->items[at_++]);
      return true;
    }
    if (current_ && current_->error) std::rethrow_exception(current_->error);
    std::unique_lock lock(mutex_);
    done_.wait(lock,
               [&] { return (!ordered_.empty() && ordered_.front()->encoded) || (ordered_.empty() && read_all_); });
    if (ordered_.empty()) return false;
    current_ = std::move(ordered_.front());
    ordered_.pop_front();
    at_ = 0;
    bytes_ahead_ -= current_->bytes;
    space_.notify_one();
  }
}

}  // namespace gsae
