#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>

#include "io/npz.h"
#include "io/token_stream.h"
#include "tests/files.h"
#include "tests/paths.h"

// A stream that goes on from a position gives what the uninterrupted one gives.
namespace gsae::test {
namespace {

using Ids = std::vector<int32_t>;
using Position = TokenStream::Position;
using Split = TokenStreamOptions::Split;

struct Step {  // one next(), and what is true behind it
  Ids tokens;
  TokenStream::Statistics statistics;
  Position position;
};
Step step(TokenStream& stream, int64_t batch) {
  Ids tokens = stream.next(batch).tokens;
  return {std::move(tokens), stream.statistics(), stream.position()};
}

// An uninterrupted run of so many batches, against a stream begun anew behind every `every`th of them, each with
// another number of threads, up to the last; and against a chain of streams, each begun where the one before it was.
// Returns the run's steps; [0] is before the first batch.
std::vector<Step> expect_exact(TokenStreamOptions o, int64_t batch, size_t batches, size_t every = 1) {
  o.threads = 1;
  TokenStream whole(o);
  std::vector<Step> want = {{{}, whole.statistics(), whole.position()}};
  while (want.size() <= batches) want.push_back(step(whole, batch));
  const auto same = [&](TokenStream& stream, size_t k, size_t i) {
    const Step got = step(stream, batch);
    EXPECT_EQ(got.tokens, want[i].tokens) << "cut behind " << k << ", batch " << i;
    EXPECT_EQ(got.statistics, want[i].statistics) << "cut behind " << k << ", batch " << i;
    EXPECT_EQ(got.position, want[i].position) << "cut behind " << k << ", batch " << i;
    return !testing::Test::HasFailure();
  };
  for (size_t k = 0; k <= batches; k += every) {
    o.threads = 1 + static_cast<int>(k % 3);
    TokenStream stream(o, want[k].position);
    EXPECT_EQ(stream.position(), want[k].position);
    EXPECT_EQ(stream.statistics(), want[k].statistics);
    for (size_t i = k + 1; i <= batches; ++i)
      if (!same(stream, k, i)) return want;
  }
  Position at;
  for (size_t i = 1; i <= batches; i += every) {
    TokenStream stream(o, at);
    for (size_t j = i; j < i + every && j <= batches; ++j)
      if (!same(stream, i - 1, j)) return want;
    at = stream.position();
  }
  return want;
}

// Every order, split and way to end.
void expect_exact_all(TokenStreamOptions o, int64_t batch, size_t batches, size_t every) {
  for (const bool shuffle : {false, true})
    for (const bool repeat : {false, true})
      for (const Split split : {Split::kAll, Split::kTrain, Split::kHeldOut})
        for (const size_t pool : {size_t{2000}, size_t{1} << 20}) {
          if (!shuffle && pool == 2000) continue;
          SCOPED_TRACE(testing::Message() << "shuffle " << shuffle << " repeat " << repeat << " split "
                                          << static_cast<int>(split) << " pool " << pool);
          o.shuffle = shuffle;
          o.repeat = repeat;
          o.split = split;
          o.eval_fraction = 0.4;
          o.shuffle_pool_bytes = pool;
          o.seed = 5;
          const std::vector<Step> steps = expect_exact(o, batch, batches, every);
          EXPECT_GE(steps.back().statistics.epoch, repeat ? 2 : 0);  // over the end of two passes, or of the data
          EXPECT_EQ(steps.back().position.ended, !repeat);
          if (testing::Test::HasFailure()) return;
        }
}

class StreamPosition : public testing::Test {
 protected:
  TokenStreamOptions options(std::vector<std::string> files, int64_t context) {
    TokenStreamOptions o;
    o.files = std::move(files);
    o.tokenizer = demo_data("model/tokenizer.model");
    o.context = context;
    o.vocab_size = 4096;
    o.split = Split::kAll;
    o.shuffle = false;
    return o;
  }
  std::string file(const std::string& name, const std::string& bytes) {
    write_bytes(folder / name, bytes);
    return folder / name;
  }
  std::string npy(const std::string& name, std::vector<int64_t> shape, const Ids& ids) {
    write_npy(folder / name, "<i4", shape, ids.data());
    return folder / name;
  }
  // Documents of four tokens, BOS, i, i, i for i from 10 on: with T = 4 each is a context.
  std::string numbered(const std::string& name, int32_t n) {
    Ids ids;
    for (int32_t i = 10; i < 10 + n; ++i) ids.insert(ids.end(), {2, i, i, i});
    return npy(name, {4 * n}, ids);
  }
  TempFolder folder;
};

std::string words(int seed, int n) {
  const char* const kWords[] = {"whale", "sea", "harpoon", "the", "ship", "of", "white", "naïve"};
  std::string text;
  auto x = static_cast<uint32_t>(seed) * 2654435761u + 1;
  for (int i = 0; i < n; ++i) text += kWords[(x = x * 1664525 + 1013904223) >> 29], text += i % 17 == 16 ? "\n\n" : " ";
  return text;
}
std::string lines(int first, int n) {  // of jsonl, of one word to fifty
  std::string all;
  for (int i = first; i < first + n; ++i)
    all += nlohmann::json{{"text", words(i, 1 + (i * 7) % 50)}}.dump() + (i % 5 == 0 ? "\n\n" : "\n");
  return all;
}
std::string zst(const std::string& bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}
void write_gz(const std::string& path, const std::string& bytes) {
  const gzFile out = gzopen(path.c_str(), "wb");
  ASSERT_EQ(gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size())), static_cast<int>(bytes.size()));
  ASSERT_EQ(gzclose(out), Z_OK);
}

TEST_F(StreamPosition, OfText) {
  write_gz(folder / "c.jsonl.gz", lines(40, 20));
  expect_exact_all(options({file("a.jsonl", lines(0, 40)), file("b.txt", words(99, 300)), folder / "c.jsonl.gz",
                            file("d.jsonl.zst", zst(lines(60, 20))), file("e.txt.zst", zst(words(98, 50)))},
                           16),
                   7, 150, 23);
}

// A file that falls into pieces of 1 MiB, cut amid the contexts of one of them.
TEST_F(StreamPosition, AmidALongDocument) {
  TokenStreamOptions o = options({file("a.txt", words(1, 400'000)), file("b.jsonl", lines(0, 30))}, 128);
  o.shuffle = o.repeat = true;
  const std::vector<Step> steps = expect_exact(o, 500, 25, 6);
  EXPECT_GT(steps[6].position.packed.size(), 128u * 100);
  EXPECT_GE(steps.back().statistics.epoch, 1);
}

TEST_F(StreamPosition, OfAStreamOfTokens) {
  // documents with BOS, with EOS, with both or neither, so that it matters what was before
  Ids ids;
  uint32_t x = 1;
  for (int i = 0; i < 3000; ++i) {
    x = x * 1664525 + 1013904223;
    ids.push_back(x >> 28 == 0 ? static_cast<int32_t>(x >> 27 & 1) + 1 : static_cast<int32_t>(10 + (x >> 16) % 100));
  }
  const std::string a = npy("a.npy", {3000}, ids);
  std::string bin;
  for (int i = 0; i < 800; ++i) bin += std::string{static_cast<char>(i % 31 == 0 ? 1 : 20 + i % 50), 0};
  expect_exact_all(options({a, file("b.bin", bin)}, 12), 5, 200, 17);
  expect_exact_all(options({a, file("c.jsonl", lines(0, 20))}, 12), 5, 200, 29);  // beside text
}

TEST_F(StreamPosition, OfRowsOfTokens) {
  Ids ids(100 * 6);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i + 1);
  expect_exact_all(
      options({npy("a.npy", {60, 6}, ids), npy("b.npy", {40, 6}, Ids(ids.rbegin(), ids.rbegin() + 240))}, 6), 7, 60, 4);
}

TEST_F(StreamPosition, ExactlyAtTheEndOfAPass) {
  TokenStreamOptions o = options({numbered("a.npy", 10)}, 4);
  o.repeat = true;
  for (const bool shuffle : {false, true}) {
    o.shuffle = shuffle;
    const std::vector<Step> steps = expect_exact(o, 5, 9);
    for (const size_t k : {2, 4}) {
      const Position& p = steps[k].position;
      EXPECT_EQ(p.statistics.epoch, static_cast<int64_t>(k) / 2 - 1);
      EXPECT_EQ(p.items, 10);
      EXPECT_EQ(p.packed_of_epoch, 40);
      EXPECT_TRUE(p.current.empty() && p.packed.empty());
    }
    EXPECT_EQ(steps[3].position.items, 5);
    EXPECT_EQ(steps[3].position.statistics.epoch, 1);
  }
  o.repeat = false;  // the end shows only when more is asked for
  const std::vector<Step> steps = expect_exact(o, 5, 4);
  EXPECT_FALSE(steps[2].position.ended);
  EXPECT_TRUE(steps[3].position.ended);
}

TEST_F(StreamPosition, OfTooLittleData) {
  for (const bool repeat : {false, true}) {
    TokenStreamOptions o = options({numbered("a.npy", 3)}, 64);
    o.repeat = repeat;
    const std::vector<Step> steps = expect_exact(o, 2, 3);
    EXPECT_TRUE(steps[1].position.ended);
    EXPECT_EQ(steps[1].position.items, 3);
  }
}

// Counted in the first pass alone, and once: those behind the last document too, which show only behind it.
TEST_F(StreamPosition, WithBadLines) {
  const std::string cut_off = zst(lines(50, 30));
  TokenStreamOptions o = options(
      {file("a.jsonl", "bad\n" + lines(0, 10) + "worse\n" + lines(10, 10)),
       file("b.jsonl", lines(20, 30) + "last\n{}\n"), file("c.jsonl.zst", cut_off.substr(0, cut_off.size() / 2))},
      16);
  o.skip_bad = true;
  for (const bool shuffle : {false, true})
    for (const bool repeat : {false, true}) {
      o.shuffle = shuffle;
      o.shuffle_pool_bytes = 2000;
      o.repeat = repeat;
      const std::vector<Step> steps = expect_exact(o, 4, 60, 1);
      EXPECT_EQ(steps.back().statistics.skipped, 5);
      EXPECT_EQ(steps.back().position.ended, !repeat);
      if (!shuffle) {
        EXPECT_EQ(steps[2].statistics.skipped, 1);
      }
      o.repeat = false;  // no more passes: the count of the first stays
      TokenStream last(o, steps.back().position);
      last.next(10'000);
      EXPECT_EQ(last.statistics().skipped, 5);
      EXPECT_EQ(last.statistics().first_skipped, steps.back().statistics.first_skipped);
    }
}

TEST_F(StreamPosition, AnErrorStaysAhead) {
  const std::string path = file("a.jsonl", lines(0, 30) + "nonsense\n");
  const TokenStreamOptions o = options({path}, 16);
  TokenStream stream(o);
  stream.next(3);
  const Position before = stream.position();
  EXPECT_ERROR(stream.next(10'000), path + ":");
  for (const Position& p : {before, stream.position()}) {
    TokenStream again(o, p);
    EXPECT_ERROR(again.next(10'000), "a.jsonl:37: ");
    EXPECT_EQ(again.position(), stream.position());
  }
}

TEST_F(StreamPosition, DataThatHaveChanged) {
  const auto after = [&](TokenStreamOptions o, int64_t contexts) {
    TokenStream stream(o);
    EXPECT_EQ(stream.next(contexts).sequences, contexts);
    return stream.position();
  };
  TokenStreamOptions o = options({numbered("a.npy", 100)}, 4);
  o.repeat = true;
  for (const bool shuffle : {false, true})
    for (const int64_t pass : {0, 2}) {
      o.shuffle = shuffle;
      numbered("a.npy", 100);
      const Position at = after(o, 100 * pass + 80);
      numbered("a.npy", 80);  // as much as was used
      TokenStream enough(o, at);
      EXPECT_EQ(enough.next(10).sequences, 10);
      EXPECT_EQ(enough.statistics().epoch, pass + 1);
      numbered("a.npy", 79);
      TokenStream stream(o, at);
      for (int i = 0; i < 2; ++i) EXPECT_ERROR(stream.next(1), "the data have changed");
      EXPECT_ERROR(stream.next(1), "has 79 documents (or rows), but 80");
    }
  TokenStreamOptions rows = options({npy("r.npy", {20, 4}, Ids(80, 7))}, 4);
  const Position at = after(rows, 15);
  npy("r.npy", {14, 4}, Ids(56, 7));
  TokenStream stream(rows, at);
  EXPECT_ERROR(stream.next(1), "the data have changed");
}

TEST_F(StreamPosition, RefusesNonsense) {
  const TokenStreamOptions o = options({numbered("a.npy", 100)}, 5);
  TokenStream stream(o);
  stream.next(7);
  const auto with = [&](const std::function<void(Position&)>& change) {
    Position p = stream.position();
    change(p);
    TokenStream{o, p};
  };
  with([](Position&) {});
  for (const int64_t n : {int64_t{-1}, INT64_MIN, INT64_MAX}) {
    EXPECT_ERROR(with([&](Position& p) { p.items = n; }), "items is");
    EXPECT_ERROR(with([&](Position& p) { p.packed_of_epoch = n; }), "packed_of_epoch is");
    EXPECT_ERROR(with([&](Position& p) { p.statistics.documents = n; }), "documents is");
    EXPECT_ERROR(with([&](Position& p) { p.statistics.tokens = n; }), "tokens is");
    EXPECT_ERROR(with([&](Position& p) { p.statistics.skipped = n; }), "skipped is");
    EXPECT_ERROR(with([&](Position& p) { p.statistics.epoch = n; }), "epoch is");
    EXPECT_ERROR(with([&](Position& p) { p.statistics.contexts = n; }), "contexts is");
  }
  EXPECT_ERROR(with([](Position& p) { p.items = p.statistics.documents + 1; }), "documents");
  EXPECT_ERROR(with([](Position& p) { p.current = {2, 5, 5, 5, 5}; }), "5 tokens of a context of 5");
  EXPECT_ERROR(with([](Position& p) { p.current = {5}; }), "BOS");
  EXPECT_ERROR(with([](Position& p) { p.packed = {2, 5, 5}; }), "3 and");
  EXPECT_ERROR(with([](Position& p) { p.packed_of_epoch = 13; }), "and 13");
  for (const int32_t id : {-1, 4096}) {
    EXPECT_ERROR(with([&](Position& p) { p.current = {2, id}; }), "outside the vocabulary");
    EXPECT_ERROR(with([&](Position& p) { p.packed = {2, 5, 5, 5, id}; }), "outside the vocabulary");
  }
  TokenStreamOptions rows = options({npy("r.npy", {20, 4}, Ids(80, 7))}, 4);
  Position begun;
  begun.current = {2, 7};
  EXPECT_ERROR((TokenStream{rows, begun}), "rows of tokens");
  rows.context = 1;
  EXPECT_ERROR((TokenStream{rows, Position{}}), "context");
  EXPECT_ERROR((TokenStream{options({o.files[0], "-"}, 4), Position{}}), "standard input cannot be read again");
}

TEST_F(StreamPosition, StopsWhileItDrops) {
  const TokenStreamOptions o = options(std::vector<std::string>(1000, demo_data("corpus.jsonl.zst")), 64);
  Position far;
  far.items = far.statistics.documents = 1 << 30;
  const auto start = std::chrono::steady_clock::now();
  { const TokenStream stream(o, far); }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));  // all of it is minutes
}

}  // namespace
}  // namespace gsae::test
