#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/documents.h"
#include "io/stop_signal.h"
#include "io/token_files.h"
#include "io/token_stream.h"
#include "kernels/philox.h"

namespace gsae {

// A document on its way to the packer.
struct Item {
  std::string text;          // to be encoded, or empty
  std::vector<int32_t> ids;  // its tokens: from a file of tokens, or once encoded
  bool continues = false;    // it follows the item before as it does in its file: no BOS goes between
  int64_t epoch = 0;
  Skipped skipped;  // so far
};

// The documents (or rows) that a TokenStream asks for, in its order: of its split, shuffled, epoch by
// epoch. Where it is in the data is the epoch, the file, the position in it, and the random numbers
// drawn: all of them counters.
class Corpus {
 public:
  struct Start {  // behind so many items of an epoch
    int64_t epoch = 0, items = 0;
  };

  // Looks at every file (standard input apart). `stop` ends next() early.
  Corpus(const TokenStreamOptions& options, const StopSignal& stop, Start start);

  // False at the end, or when stopped. The first call reads and drops the items before the start; an Error if there
  // are not so many.
  bool next(Item& item);
  bool has_text() const { return has_text_; }          // a tokenizer is needed
  bool has_rows() const { return has_rows_; }          // items are contexts, not to be packed
  const Skipped& skipped() const { return skipped_; }  // in the first epoch, if it was read: later ones skip the same

 private:
  struct Pooled {
    Item item;
    size_t file = 0;
    int64_t begin = -1, end = -1;  // in a stream of tokens
  };

  void start_epoch(int64_t epoch);
  void drop_to_start();
  bool next_of_epoch(Item& item);
  bool read_row(Item& item);
  bool draw(Pooled& drawn);
  bool read_wanted(Pooled& document);  // the next of this split, in the order of the files
  bool read(Pooled& document);
  bool wanted(const Item& item) const;
  uint64_t random_below(uint64_t n) { return random_.below(n, drawn_++); }

  TokenStreamOptions options_;
  const StopSignal& stop_;
  Start start_;
  std::vector<std::optional<TokenFile>> token_files_;  // of options_.files, where they are such
  bool has_text_ = false, has_rows_ = false, has_stdin_ = false;

  bool started_ = false;
  int64_t epoch_ = 0;
  int64_t items_ = 0;  // of this epoch, handed out or dropped
  Random random_{0, Random::kShuffleDocuments};
  uint64_t drawn_ = 0;  // random numbers of this epoch
  Skipped skipped_;
  int64_t skipped_of_file_ = 0;

  std::vector<size_t> file_order_;
  size_t file_ = 0;  // in file_order_
  std::optional<DocumentReader> reader_;
  std::optional<StreamDocuments> stream_;
  std::vector<Pooled> pool_;
  size_t pool_bytes_ = 0;
  size_t last_file_ = 0;
  int64_t last_end_ = -1;  // of the document before, in a stream of tokens

  std::vector<std::pair<uint32_t, int64_t>> row_order_;  // (file, row)
  size_t row_ = 0;                                       // in row_order_
};

}  // namespace gsae
