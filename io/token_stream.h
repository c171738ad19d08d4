#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gsae {

// What the stream reads and how it cuts it. DESIGN: docs/design.md, "Text and tokens".
struct TokenStreamOptions {
  std::vector<std::string> files;      // .txt .jsonl (also .zst .gz), "-" (text or jsonl on standard
                                       // input, told apart by its first byte), .npy .bin .safetensors:
                                       // see io/documents.h and io/token_files.h
  std::string tokenizer;               // path of tokenizer.model; not read when all files are tokens
  std::string text_field = "text";     // of a jsonl object
  std::string token_dtype = "uint16";  // of .bin files: uint16 or uint32
  bool skip_bad = false;               // count and report malformed lines instead of an Error
  int64_t context = 1024;              // T
  int32_t bos = 2, eos = 1, pad = 0;
  int64_t vocab_size = 0;       // ids outside [0, vocab_size) are an Error with file and position; 0: any
  double eval_fraction = 0.02;  // held out, by a hash of the document (or of the row of tokens)
  enum class Split { kTrain, kHeldOut, kAll } split = Split::kTrain;
  bool shuffle = true;  // documents (or rows) in an order drawn from a bounded pool
  size_t shuffle_pool_bytes = size_t{256} << 20;
  bool repeat = false;  // start again, in another order, when the data runs out
  uint64_t seed = 0;
  int threads = 1;  // that tokenise, beside the one that reads
};

// One batch: B contexts of T tokens, row-major (B, T). The last one before the end may be short.
struct TokenBatch {
  int64_t sequences = 0;        // rows that are filled
  int64_t context = 0;          // T
  std::vector<int32_t> tokens;  // sequences * context
};

// Contexts of tokens from text or token files, read, tokenised and packed by background threads.
//
// Text: each document becomes BOS + pieces; documents are concatenated; the stream is cut into
// contexts of T tokens, each of which begins with BOS (T - 1 tokens of the stream behind it, or T
// where the stream has a BOS at the cut). A .txt file is one document, or several if it is longer
// than 1 MiB (io/text_pieces.h). Empty documents are left out. A rest too short for a context is
// dropped, at the end of each pass over the data.
//
// Tokens: 2-D files are taken as they are, row by row (their width must be T). 1-D streams are cut
// like text; what is shuffled and held out are their documents (io/token_files.h), with a BOS before
// each that does not follow the one before as in the file, so that unshuffled and whole the stream
// is the file's. 2-D files cannot be mixed with the others. An id outside the vocabulary is always an
// Error: skip_bad is for damaged data, not for another tokenizer's.
//
// Shuffled: rows in a permutation of all of them; documents by drawing from a pool of
// shuffle_pool_bytes which is filled in the order of the files, itself permuted. Each pass has
// another order. With standard input among the files there is one pass only, `repeat` or not.
//
// Held out is what has XXH3_64 < eval_fraction * 2^64, over the document's UTF-8 bytes, or over the
// tokens as little-endian int32: the same documents whatever the seed, the order and the context.
//
// The order, the split and so every batch depend on the options alone, never on timing or on the
// number of threads. Errors of the background threads are thrown by next(), and again by each
// further next(): fewer contexts than asked for always mean the end of the data.
class TokenStream {
 public:
  struct Statistics {
    int64_t documents = 0;      // (or rows) of this split so far, every epoch counted
    int64_t tokens = 0;         // of them, with the BOS put before documents
    int64_t skipped = 0;        // malformed, with skip_bad, up to here; of the first pass
    std::string first_skipped;  // "FILE:LINE: reason" of the first of them
    int64_t epoch = 0;          // 0 during the first pass over the data
    int64_t contexts = 0;       // handed out
    bool operator==(const Statistics&) const = default;
  };

  // Where a stream is, to be stored: what it takes, with the options and the data, to go on from there.
  struct Position {
    Statistics statistics;         // with the epoch
    int64_t items = 0;             // documents (or rows) of this epoch, packed so far
    int64_t packed_of_epoch = 0;   // tokens, in whole contexts
    bool ended = false;            // the data ran out
    std::vector<int32_t> current;  // the context that is not complete yet
    std::vector<int32_t> packed;   // whole contexts, not handed out yet: the rest of a long document
    bool operator==(const Position&) const = default;
  };

  explicit TokenStream(TokenStreamOptions options);  // opens every file: an unreadable one is an Error here

  // Goes on where another stream with the same options (threads apart) was: the contexts and the
  // statistics are those that it would have given, bit for bit. The documents before are read and
  // dropped by the background thread, without being tokenised. An Error if the position cannot be one of
  // these options (it comes from a file), or if standard input is among the files; next() throws one if
  // the data no longer hold as much as was used. That they hold the same is the caller's to check:
  // io/file_stamp.h.
  TokenStream(TokenStreamOptions options, const Position& from);
  ~TokenStream();

  // Up to `sequences` contexts, fewer only at the end of the data; 0 when there are no more. Data that
  // does not fill one context ends at once, `repeat` or not: the statistics say what there was.
  TokenBatch next(int64_t sequences);

  // As of the last next(): depends on no timing; by the same thread.
  Statistics statistics() const;
  Position position() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gsae
