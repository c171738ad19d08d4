#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gsae {

// What the stream reads and how it cuts it. DESIGN: docs/design.md, "Text and tokens".
struct TokenStreamOptions {
  std::vector<std::string> files;      // .txt .jsonl (also .zst .gz), "-" (text or jsonl on standard
                                       // input, told apart by its first byte), .npy .bin .safetensors
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
// where the stream has a BOS at the cut). 2-D token files are taken as they are, row by row (their
// width must be T); 1-D token streams are cut like text. A rest too short for a context is dropped.
//
// The order, the split and so every batch depend on the options alone, never on timing or on the
// number of threads. Errors of the background threads are thrown by next().
class TokenStream {
 public:
  explicit TokenStream(TokenStreamOptions options);  // opens every file: an unreadable one is an Error here
  ~TokenStream();

  // Up to `sequences` contexts, fewer only at the end of the data; 0 when there are no more.
  TokenBatch next(int64_t sequences);

  struct Statistics {
    int64_t documents = 0;      // of this split that were tokenised so far
    int64_t skipped = 0;        // malformed, with skip_bad
    std::string first_skipped;  // "FILE:LINE: reason" of the first of them
    int64_t epoch = 0;          // 0 during the first pass over the data
    int64_t contexts = 0;       // handed out
  };
  Statistics statistics() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gsae
