#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "io/documents.h"
#include "io/hub.h"
#include "io/token_stream.h"
#include "io/tokenizer.h"

// Reading, tokenising and packing the demo's corpus: bytes of text and tokens per second. What a model
// needs is its tokens per second; these must be well above.
namespace gsae::bench {
namespace {

std::string corpus() { return demo_folder() + "/corpus.jsonl.zst"; }
std::string tokenizer_path() { return demo_folder() + "/model/tokenizer.model"; }

std::vector<std::string> texts(size_t bytes) {
  std::vector<std::string> all;
  DocumentReader reader(corpus(), {});
  size_t n = 0;
  for (std::string text; n < bytes && reader.next(text);) n += text.size(), all.push_back(std::move(text));
  return all;
}

void read_documents(benchmark::State& state) {
  int64_t bytes = 0;
  for (auto _ : state) {
    DocumentReader reader(corpus(), {});
    for (std::string text; reader.next(text);) bytes += static_cast<int64_t>(text.size());
  }
  state.SetBytesProcessed(bytes);
}
BENCHMARK(read_documents)->Unit(benchmark::kMillisecond);

// Each in turn: a fresh WordEncoder (one per iteration, so that its words are new to it), and the
// Tokenizer, which is SentencePiece on parts of some 4 KiB.
template <bool words> void encode(benchmark::State& state) {
  const Tokenizer tokenizer(tokenizer_path());
  const auto all = texts(size_t{4} << 20);
  int64_t bytes = 0, tokens = 0;
  for (auto _ : state) {
    WordEncoder encoder(tokenizer);
    std::vector<int32_t> ids;
    for (const std::string& text : all) {
      if (words) encoder.encode(ids, text);
      else ids = tokenizer.encode(text);
      bytes += static_cast<int64_t>(text.size());
      tokens += static_cast<int64_t>(ids.size());
    }
  }
  state.SetBytesProcessed(bytes);
  state.counters["tokens"] = benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}
BENCHMARK(encode<true>)->Name("encode_words")->Unit(benchmark::kMillisecond);
BENCHMARK(encode<false>)->Name("encode_parts")->Unit(benchmark::kMillisecond);

// The whole stream, shuffled, with so many threads that tokenise; wall time.
void stream(benchmark::State& state) {
  TokenStreamOptions options;
  options.files = {corpus()};
  options.tokenizer = tokenizer_path();
  options.context = 256;
  options.threads = static_cast<int>(state.range(0));
  options.shuffle_pool_bytes = size_t{4} << 20;
  int64_t tokens = 0;
  for (auto _ : state) {
    TokenStream s(options);
    while (const int64_t n = s.next(16).sequences) tokens += n * options.context;
  }
  state.counters["tokens"] = benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
}
BENCHMARK(stream)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gsae::bench

BENCHMARK_MAIN();
