#include "io/token_stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <thread>

#include "io/documents.h"
#include "io/npz.h"
#include "io/tokenizer.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

using Ids = std::vector<int32_t>;
using Split = TokenStreamOptions::Split;

const std::string kTokenizer = demo_data("model/tokenizer.model");
const std::string kCorpus = demo_data("corpus.jsonl.zst");
constexpr int32_t kBos = 2;

TokenStreamOptions in_order(std::vector<std::string> files, int64_t context) {
  TokenStreamOptions o;
  o.files = std::move(files);
  o.tokenizer = kTokenizer;
  o.context = context;
  o.vocab_size = 4096;
  o.split = Split::kAll;
  o.shuffle = false;
  return o;
}

// All that a stream gives, asked for in batches of one size, at most `limit` contexts.
Ids drain(TokenStream& stream, int64_t batch = 3, int64_t limit = 1 << 20) {
  Ids all;
  for (int64_t n = 0; n < limit;) {
    const TokenBatch b = stream.next(std::min(batch, limit - n));
    EXPECT_EQ(static_cast<int64_t>(b.tokens.size()), b.sequences * b.context);
    all.insert(all.end(), b.tokens.begin(), b.tokens.end());
    n += b.sequences;
    if (b.sequences < batch) break;
  }
  return all;
}
Ids drain(const TokenStreamOptions& options, int64_t batch = 3, int64_t limit = 1 << 20) {
  TokenStream stream(options);
  return drain(stream, batch, limit);
}

// The rule of the header, a second time: the stream is one vector, cut from the left.
Ids cut(const Ids& stream, int64_t context) {
  Ids out;
  size_t at = 0;
  const auto t = static_cast<size_t>(context);
  while (at < stream.size()) {
    const bool has_bos = stream[at] == kBos;
    const size_t take = has_bos ? t : t - 1;
    if (stream.size() - at < take) break;
    if (!has_bos) out.push_back(kBos);
    out.insert(out.end(), stream.begin() + static_cast<ptrdiff_t>(at),
               stream.begin() + static_cast<ptrdiff_t>(at + take));
    at += take;
  }
  return out;
}

class TokenStreams : public testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& bytes) {
    write_bytes(folder / name, bytes);
    return folder / name;
  }
  std::string jsonl(const std::string& name, const std::vector<std::string>& texts) {
    std::string lines;
    for (const std::string& text : texts) lines += nlohmann::json{{"text", text}}.dump() + "\n";
    return file(name, lines);
  }
  std::string npy(const std::string& name, std::vector<int64_t> shape, const Ids& ids) {
    write_npy(folder / name, "<i4", shape, ids.data());
    return folder / name;
  }
  // Documents of four tokens, BOS, i, i, i for i from 10 on: with T = 4 each is a context.
  std::string numbered(const std::string& name, int32_t n, int32_t first = 10) {
    Ids ids;
    for (int32_t i = first; i < first + n; ++i) ids.insert(ids.end(), {kBos, i, i, i});
    return npy(name, {4 * n}, ids);
  }
  TempFolder folder;
};

Ids numbers(const Ids& contexts) {  // of `numbered` documents
  Ids n;
  for (size_t i = 0; i < contexts.size(); i += 4) {
    EXPECT_EQ(contexts[i], kBos);
    EXPECT_EQ(contexts[i + 1], contexts[i + 3]);
    n.push_back(contexts[i + 1]);
  }
  return n;
}
Ids sorted(Ids v) {
  std::sort(v.begin(), v.end());
  return v;
}
Ids range(int32_t first, int32_t n) {
  Ids v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), first);
  return v;
}

TEST_F(TokenStreams, TextIsBosAndPiecesCutIntoContexts) {
  const std::vector<std::string> texts = {"Call me Ishmael.", "", "<bos>not special<eos>", "naïve café — 鯨 🐋\n", "a"};
  const std::string text_file = file("b.txt", "The last document.\n\nIt has two paragraphs.");
  const Tokenizer tokenizer(kTokenizer);
  Ids stream;
  int64_t documents = 0;
  for (std::string text : {texts[0], texts[2], texts[3], texts[4], read_bytes(text_file)}) {
    stream.push_back(kBos);
    for (const int32_t id : tokenizer.encode(text)) stream.push_back(id);
    ++documents;
  }
  for (const int64_t context : {2, 3, 5, 16}) {
    TokenStream s(in_order({jsonl("a.jsonl", texts), text_file}, context));
    EXPECT_EQ(drain(s), cut(stream, context)) << context;
    EXPECT_EQ(s.next(1).sequences, 0);
    EXPECT_EQ(s.statistics().documents, documents);
    EXPECT_EQ(s.statistics().tokens, static_cast<int64_t>(stream.size()));
    EXPECT_EQ(s.statistics().contexts * context, static_cast<int64_t>(cut(stream, context).size()));
    EXPECT_EQ(s.statistics().epoch, 0);
  }
}

TEST_F(TokenStreams, TheSameWhateverTheThreadsAndTheBatch) {
  TokenStreamOptions o = in_order({kCorpus}, 128);
  o.shuffle = true;
  o.shuffle_pool_bytes = 1 << 20;
  o.split = Split::kTrain;
  const Ids want = drain(o, 64, 2000);
  ASSERT_EQ(want.size(), 2000u * 128);
  for (const int threads : {2, 5}) {
    o.threads = threads;
    EXPECT_EQ(drain(o, 7, 2000), want);
  }
  o.seed = 1;
  EXPECT_NE(drain(o, 64, 2000), want);
}

TEST_F(TokenStreams, ShuffledOnceEachWithinThePool) {
  TokenStreamOptions o = in_order({numbered("a.npy", 2000)}, 4);
  EXPECT_EQ(numbers(drain(o)), range(10, 2000));
  o.shuffle = true;
  const Ids shuffled = numbers(drain(o));
  EXPECT_NE(shuffled, range(10, 2000));
  EXPECT_EQ(sorted(shuffled), range(10, 2000));
  EXPECT_EQ(numbers(drain(o)), shuffled);
  o.seed = 7;
  EXPECT_NE(numbers(drain(o)), shuffled);

  // A document can come at most as much too early as the pool holds; and with a small one, it does.
  o.shuffle_pool_bytes = 20'000;
  const Ids nearly = numbers(drain(o));
  EXPECT_EQ(sorted(nearly), range(10, 2000));
  int64_t earliest = 0;
  for (size_t p = 0; p < nearly.size(); ++p) earliest = std::max(earliest, nearly[p] - 10 - static_cast<int64_t>(p));
  EXPECT_GT(earliest, 20);
  EXPECT_LT(earliest, 20'000 / 16);  // each takes its 16 bytes of tokens at least
}

TEST_F(TokenStreams, UniformOverThePool) {
  // where the first document ends up over 400 seeds: chi-squared with 9 degrees, beyond 27.9 in one of 1000
  const std::string path = numbered("a.npy", 10);
  std::vector<int> count(10);
  for (uint64_t seed = 0; seed < 400; ++seed) {
    TokenStreamOptions o = in_order({path}, 4);
    o.shuffle = true;
    o.seed = seed;
    const Ids order = numbers(drain(o));
    ++count.at(static_cast<size_t>(std::find(order.begin(), order.end(), 10) - order.begin()));
  }
  double chi2 = 0;
  for (const int c : count) chi2 += (c - 40.0) * (c - 40.0) / 40;
  EXPECT_LT(chi2, 27.9);
}

TEST_F(TokenStreams, RepeatsInAnotherOrder) {
  TokenStreamOptions o = in_order({numbered("a.npy", 100), numbered("b.npy", 100, 110)}, 4);
  o.shuffle = o.repeat = true;
  TokenStream s(o);
  std::set<Ids> orders;
  for (int epoch = 0; epoch < 4; ++epoch) {
    const Ids order = numbers(drain(s, 10, 200));
    EXPECT_EQ(s.statistics().epoch, epoch);
    EXPECT_EQ(sorted(order), range(10, 200));
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 4u);
  EXPECT_EQ(s.statistics().contexts, 800);
  EXPECT_EQ(s.statistics().documents, 800);
}

TEST_F(TokenStreams, TrainAndHeldOutArePartsOfAll) {
  TokenStreamOptions o = in_order({numbered("a.npy", 4000)}, 4);
  o.eval_fraction = 0.1;
  o.split = Split::kTrain;
  const Ids train = numbers(drain(o));
  o.split = Split::kHeldOut;
  const Ids held_out = numbers(drain(o));
  EXPECT_NEAR(static_cast<double>(held_out.size()), 400, 95);  // five standard deviations: sqrt(4000 * 0.1 * 0.9) = 19
  Ids both = train;
  both.insert(both.end(), held_out.begin(), held_out.end());
  EXPECT_EQ(sorted(both), range(10, 4000));
  o.seed = 99;
  o.shuffle = true;
  EXPECT_EQ(sorted(numbers(drain(o))), held_out);

  o.eval_fraction = 0;
  EXPECT_TRUE(drain(o).empty());
  o.eval_fraction = 1;
  EXPECT_EQ(drain(o).size(), 16000u);
}

// The hash is of the text, not of where it stands; and it is XXH3, which does not change: a later
// version holds out the same documents.
TEST_F(TokenStreams, HeldOutByTheTextAlone) {
  std::vector<std::string> texts;
  for (int i = 0; i < 200; ++i) texts.push_back("document number " + std::to_string(i));
  std::vector<std::string> files;
  for (int i = 0; i < 200; ++i) files.push_back(file(std::to_string(i) + ".txt", texts[static_cast<size_t>(i)]));
  std::reverse(texts.begin(), texts.end());
  std::reverse(files.begin(), files.end());
  TokenStreamOptions o = in_order({jsonl("a.jsonl", texts)}, 4);
  o.split = Split::kHeldOut;
  o.eval_fraction = 0.3;
  const Ids from_lines = drain(o);
  o.files = files;
  EXPECT_EQ(drain(o), from_lines);
  EXPECT_GT(from_lines.size(), 100u);

  // sum(xxhash.xxh3_64_intdigest(f"document number {i}".encode()) < 0.3 * 2**64 for i in range(200)) in Python
  TokenStream s(o);
  drain(s);
  EXPECT_EQ(s.statistics().documents, 66);
}

TEST_F(TokenStreams, RowsAreTakenAsTheyAre) {
  Ids ids;
  for (int32_t r = 0; r < 50; ++r) ids.insert(ids.end(), {10 + r, 0, 1, 10 + r});  // no BOS, padding: as they are
  TokenStreamOptions o = in_order({npy("a.npy", {30, 4}, Ids(ids.begin(), ids.begin() + 120)),
                                   npy("b.npy", {20, 4}, Ids(ids.begin() + 120, ids.end()))},
                                  4);
  EXPECT_EQ(drain(o), ids);
  const auto first = [](const Ids& rows) {
    Ids v;
    for (size_t i = 0; i < rows.size(); i += 4) v.push_back(rows[i]);
    return v;
  };
  o.shuffle = o.repeat = true;
  o.shuffle_pool_bytes = 1;  // rows need no pool
  TokenStream s(o);
  const Ids once = first(drain(s, 7, 50)), twice = first(drain(s, 7, 50));
  EXPECT_EQ(sorted(once), range(10, 50));
  EXPECT_EQ(sorted(twice), range(10, 50));
  EXPECT_NE(once, twice);
  EXPECT_NE(once, range(10, 50));

  o.repeat = false;
  o.eval_fraction = 0.4;
  o.split = Split::kTrain;
  Ids both = first(drain(o));
  o.split = Split::kHeldOut;
  const Ids held_out = first(drain(o));
  EXPECT_FALSE(both.empty() || held_out.empty());
  both.insert(both.end(), held_out.begin(), held_out.end());
  EXPECT_EQ(sorted(both), range(10, 50));

  o.context = 8;
  EXPECT_ERROR(TokenStream{o}, "--context 4");
  o.context = 4;
  o.files.push_back(kCorpus);
  EXPECT_ERROR(TokenStream{o}, "cannot be mixed");
}

TEST_F(TokenStreams, AStreamOfTokensInOrderIsTheFile) {
  // documents with BOS, with EOS, with both, longer than a context; ids from a small generator
  Ids stream;
  uint32_t x = 1;
  for (int i = 0; i < 5000; ++i) {
    x = x * 1664525 + 1013904223;
    stream.push_back(x >> 28 == 0 ? static_cast<int32_t>(x >> 27 & 1) + 1 : static_cast<int32_t>(10 + (x >> 16) % 100));
  }
  for (const int64_t context : {2, 7, 64})
    EXPECT_EQ(drain(in_order({npy("a.npy", {5000}, stream)}, context)), cut(stream, context)) << context;

  // Two files: a BOS goes between, unless there is one.
  const std::string a = npy("a.npy", {3}, {11, 12, 13}), b = npy("b.npy", {3}, {21, 22, 23}),
                    c = npy("c.npy", {3}, {2, 31, 32});
  EXPECT_EQ(drain(in_order({a, b, c}, 5)), (Ids{2, 11, 12, 13, 2, 2, 21, 22, 23, 2}));
}

// Documents that end in EOS and begin with no BOS: where shuffling puts one behind another than in the
// file, a BOS goes between.
TEST_F(TokenStreams, ABosWhereDocumentsOfAStreamAreJoined) {
  Ids stream;
  for (int32_t i = 10; i < 510; ++i) stream.insert(stream.end(), {i, i, 1});
  TokenStreamOptions o = in_order({npy("a.npy", {1500}, stream)}, 50);
  o.shuffle = true;
  const Ids got = drain(o);
  int joins = 0;
  for (size_t p = 2; p < got.size(); ++p) {
    if (got[p - 1] != 1 || got[p] == kBos) continue;  // a document that begins right behind another
    EXPECT_EQ(got[p - 2] + 1, got[p]) << p;
    ++joins;
  }
  EXPECT_LT(joins, 20);  // 500 documents: one, on average, is still behind its predecessor
}

// Each pass begins a context of its own: what the one before left over is dropped.
TEST_F(TokenStreams, APassLeavesNothingToTheNext) {
  TokenStreamOptions o = in_order({npy("a.npy", {6}, {2, 11, 12, 13, 14, 15})}, 4);
  o.repeat = true;
  EXPECT_EQ(drain(o, 3, 3), (Ids{2, 11, 12, 13, 2, 11, 12, 13, 2, 11, 12, 13}));
}

TEST_F(TokenStreams, TooLittleDataEndsAtOnce) {
  TokenStreamOptions o = in_order({jsonl("a.jsonl", {"a few words", "and more"})}, 1024);
  o.repeat = true;
  TokenStream s(o);
  EXPECT_EQ(s.next(8).sequences, 0);
  EXPECT_EQ(s.next(8).sequences, 0);
  EXPECT_EQ(s.statistics().documents, 2);
  EXPECT_GT(s.statistics().tokens, 4);
  o.split = Split::kHeldOut;  // nothing of it is
  o.eval_fraction = 0;
  TokenStream nothing(o);
  EXPECT_EQ(nothing.next(8).sequences, 0);
  EXPECT_EQ(nothing.statistics().documents, 0);
}

TEST_F(TokenStreams, BadDataIsAnErrorThatStays) {
  const std::string path =
      file("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\nnonsense\n{\"text\": \"three\"}\n");
  TokenStreamOptions o = in_order({path}, 2);
  TokenStream s(o);
  for (int i = 0; i < 3; ++i) EXPECT_ERROR(s.next(1000), path + ":3: ");

  o.skip_bad = o.repeat = true;
  TokenStream skipping(o);
  drain(skipping, 10, 100);
  EXPECT_GT(skipping.statistics().epoch, 2);
  EXPECT_EQ(skipping.statistics().skipped, 1);  // of the first pass
  EXPECT_TRUE(skipping.statistics().first_skipped.starts_with(path + ":3: "));

  // nothing but bad lines: the end of the data, and the count says why
  o.files = {file("b.jsonl", "x\ny\n")};
  TokenStream bad(o);
  EXPECT_EQ(bad.next(1).sequences, 0);
  EXPECT_EQ(bad.statistics().skipped, 2);

  o.files = {npy("a.npy", {3}, {5, 4096, 7})};  // skip_bad is not for this
  TokenStream ids(o);
  EXPECT_ERROR(ids.next(1), "position 1");
}

TEST_F(TokenStreams, RefusesWhatItCannotUse) {
  const auto with = [&](auto change) {
    TokenStreamOptions o = in_order({kCorpus}, 16);
    change(o);
    TokenStream stream(o);
  };
  EXPECT_ERROR(with([](auto& o) { o.files = {}; }), "no data");
  EXPECT_ERROR(with([&](auto& o) { o.files = {kCorpus, "/absent/x.jsonl"}; }), "/absent/x.jsonl");
  EXPECT_ERROR(with([](auto& o) { o.files = {"x.csv"}; }), ".jsonl");
  EXPECT_ERROR(with([](auto& o) { o.files = {"-", "-"}; }), "twice");
  EXPECT_ERROR(with([](auto& o) { o.tokenizer = "/absent/tokenizer.model"; }), "/absent/tokenizer.model");
  EXPECT_ERROR(with([](auto& o) { o.vocab_size = 4095; }), "another model's tokenizer");
  EXPECT_ERROR(with([](auto& o) { o.context = 1; }), "context");
  EXPECT_ERROR(with([](auto& o) { o.eval_fraction = 1.5; }), "eval_fraction");
  EXPECT_ERROR(with([](auto& o) { o.threads = 0; }), "thread");
  EXPECT_ERROR(with([&](auto& o) { o.files = {file("empty.txt", "")}; }), "is empty");
  // tokens need no tokenizer
  with([&](auto& o) { o.files = {numbered("a.npy", 3)}, o.tokenizer = ""; });
}

// Standard input as a pipe, for the life of the object.
class PipedInput {
 public:
  PipedInput() : old_(dup(STDIN_FILENO)) {
    int ends[2];
    if (pipe(ends) != 0) throw Error("pipe");
    dup2(ends[0], STDIN_FILENO);
    close(ends[0]);
    in_ = ends[1];
  }
  ~PipedInput() {
    finish();
    dup2(old_, STDIN_FILENO);
    close(old_);
  }
  void write(const std::string& bytes) { ASSERT_EQ(::write(in_, bytes.data(), bytes.size()), ssize_t(bytes.size())); }
  void finish() {
    if (in_ >= 0) close(std::exchange(in_, -1));
  }

 private:
  int old_, in_ = -1;
};

TEST_F(TokenStreams, StandardInputIsTextOrLines) {
  const Tokenizer tokenizer(kTokenizer);
  for (const std::string input : {"{\"text\": \"Call me Ishmael.\"}\n", "Call me Ishmael."}) {
    PipedInput pipe;
    TokenStreamOptions o = in_order({"-"}, 3);
    o.repeat = true;  // cannot be: it ends
    TokenStream s(o);
    pipe.write(input);
    pipe.finish();
    Ids stream = {kBos};
    for (const int32_t id : tokenizer.encode("Call me Ishmael.")) stream.push_back(id);
    EXPECT_EQ(drain(s), cut(stream, 3));
  }
  PipedInput pipe;  // compressed, told by its first bytes
  pipe.write(read_bytes(kCorpus).substr(0, 40'000));
  pipe.finish();
  TokenStream s(in_order({"-"}, 64));
  EXPECT_ERROR(drain(s), "standard input:");
}

TEST_F(TokenStreams, StopsWhileStandardInputIsSilent) {
  PipedInput pipe;
  const auto start = std::chrono::steady_clock::now();
  {
    TokenStream s(in_order({"-"}, 64));
    pipe.write("{\"text\": \"a beginning");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST_F(TokenStreams, StopsAmidALotOfWork) {
  TokenStreamOptions o = in_order({kCorpus, kCorpus, kCorpus}, 64);
  o.shuffle = o.repeat = true;
  o.threads = 3;
  o.shuffle_pool_bytes = 4 << 20;
  const auto start = std::chrono::steady_clock::now();
  for (const int64_t n : {0, 1, 300}) {
    TokenStream s(o);
    EXPECT_EQ(s.next(n).sequences, n);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(60));
}

}  // namespace
}  // namespace gsae::test
