#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "io/corpus.h"
#include "io/stop_signal.h"
#include "io/tokenizer.h"

namespace gsae {

// Reads items on one thread and encodes their text on several others, ahead of who takes them, in
// bounded memory. The items come out in the order in which they were read, however many threads.
class EncodePipeline {
 public:
  // `source` puts the next item in its argument, false at the end; it runs on the reading thread and
  // must return soon once `stop` is raised. `tokenizer` may be null when no item has text.
  EncodePipeline(std::function<bool(Item&)> source, const Tokenizer* tokenizer, int threads, StopSignal& stop);
  ~EncodePipeline();  // raises `stop`

  // The next item, with ids and without text; false at the end. Throws what the source or the
  // tokenizer threw, after the items before it, and again at each further call.
  bool next(Item& item);

 private:
  // Small documents travel together: the queues are then not what takes the time.
  struct Batch {
    std::vector<Item> items;
    size_t bytes = 0;
    std::exception_ptr error;  // behind the items
    bool encoded = false;
  };

  void read(const std::function<bool(Item&)>& source);
  void encode();
  bool push(std::shared_ptr<Batch> batch);

  const Tokenizer* tokenizer_;
  StopSignal& stop_;
  std::mutex mutex_;
  std::condition_variable space_, work_, done_;
  std::deque<std::shared_ptr<Batch>> ordered_;    // as they go out
  std::deque<std::shared_ptr<Batch>> unencoded_;  // those of them that no thread has taken yet
  size_t bytes_ahead_ = 0;                        // in ordered_
  bool read_all_ = false;
  std::shared_ptr<Batch> current_;  // being taken apart by next()
  size_t at_ = 0;                   // in current_
  std::vector<std::thread> threads_;
};

}  // namespace gsae
