#include "io/tokenizer.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "io/documents.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kDemoTokenizer = demo_data("model/tokenizer.model");

// Written by the sentencepiece Python package: text, ids, and what the ids decode to.
nlohmann::json goldens(const std::string& name) {
  return nlohmann::json::parse(std::ifstream(test_data("tokenizer.json"))).at(name);
}

void expect_goldens(const Tokenizer& tokenizer, const std::string& name) {
  WordEncoder words(tokenizer);
  for (const auto& golden : goldens(name)) {
    const std::string text = golden.at("text");
    const std::vector<int32_t> want = golden.at("ids");
    std::vector<int32_t> got;
    for (int time = 0; time < 2; ++time) {  // unknown words, and known ones
      words.encode(got, text);
      EXPECT_EQ(got, want) << text;
    }
    EXPECT_EQ(tokenizer.encode(text), want) << text;
    EXPECT_EQ(tokenizer.decode(want), std::string(golden.at("decoded"))) << text;
  }
}

// Text that is cut into words gives the ids that the library gives for the whole. The demo's corpus,
// and strings of fragments that meet in every way: spaces, U+2581, user-defined symbols, bytes.
void expect_as_the_library(const std::string& model, int documents) {
  const Tokenizer tokenizer(model);
  WordEncoder words(tokenizer);
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(model).ok());
  const auto compare = [&](const std::string& text) {
    std::vector<int> want;
    ASSERT_TRUE(library.Encode(text, &want).ok());
    std::vector<int32_t> got;
    words.encode(got, text);
    ASSERT_EQ(got, std::vector<int32_t>(want.begin(), want.end())) << text.substr(0, 500);
    ASSERT_EQ(tokenizer.encode(text), got) << text.substr(0, 500);
  };
  DocumentReader reader(demo_data("corpus.jsonl.zst"), {});
  std::string text;
  for (int i = 0; i < documents && reader.next(text); ++i) compare(text.substr(0, 20'000));

  const std::vector<std::string> fragments = {" ",
                                              "  ",
                                              "   ",
                                              "\n",
                                              "\n\n",
                                              "\n\n\n",
                                              "\t",
                                              "\r\n",
                                              "\xE2\x96\x81",
                                              "▁the",
                                              "the",
                                              " of",
                                              "é",
                                              "鯨",
                                              "🐋",
                                              "<bos>",
                                              "<",
                                              "<0x0A>",
                                              "<h1>",
                                              ">",
                                              "</strong>",
                                              "12",
                                              ".",
                                              "...",
                                              "!",
                                              "'s",
                                              "A",
                                              "aaaa",
                                              "=====",
                                              "\\",
                                              "\xC2\xA0",
                                              "مر",
                                              "ß",
                                              std::string(1, '\0'),
                                              "<start_of_turn>",
                                              "<end_of_turn>"};
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    text.clear();
    for (int n = static_cast<int>(random() % 40); n >= 0; --n) text += fragments[random() % fragments.size()];
    compare(text);
  }
}

TEST(Tokenizer, DemoGoldens) { expect_goldens(Tokenizer(kDemoTokenizer), "tiny"); }
TEST(Tokenizer, WordsGiveTheIdsOfTheWhole) { expect_as_the_library(kDemoTokenizer, 300); }

// Gemma's own vocabulary may not be distributed with this program.
TEST(Tokenizer, Gemma2) {
  const char* path = std::getenv("GSAE_GEMMA_TOKENIZER");
  if (!path) GTEST_SKIP() << "GSAE_GEMMA_TOKENIZER is not set: the path of Gemma 2's tokenizer.model";
  expect_goldens(Tokenizer(path), "gemma2");
  expect_as_the_library(path, 100);
}

TEST(Tokenizer, CutsBetweenWordsOnly) {
  const Tokenizer tokenizer(kDemoTokenizer);
  const std::string text = "the whale and  the sea\n\nof";
  std::vector<std::string> words;
  for (size_t begin = 0, end; begin < text.size(); begin = end) {
    end = tokenizer.word_end(text, begin);
    words.push_back(text.substr(begin, end - begin));
  }
  EXPECT_EQ(words, (std::vector<std::string>{"the", " whale", " and", "  the", " sea", "\n\n", "of"}));
}

// A file's settings that make a cut unsafe: the ids are then the library's for the whole text. The
// demo's model with one setting changed in its bytes (field 3 or 4 of the normalizer, field 3), so
// that the library reads it too.
TEST(Tokenizer, DoesNotCutWhereTheModelForbids) {
  const std::string model = read_bytes(kDemoTokenizer);
  TempFolder folder;
  int changed = 0;
  for (const char field : {'\x18', '\x20'}) {  // add_dummy_prefix, remove_extra_whitespaces
    std::string other = model;
    // appended messages are merged into those before: NormalizerSpec { field: true }
    other += std::string("\x1A\x02", 2) + field + '\x01';
    const std::string path = folder / "other.model";
    write_bytes(path, other);
    const Tokenizer tokenizer(path);
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.Load(path).ok());
    const std::string text = "the whale  and the sea";
    EXPECT_EQ(tokenizer.word_end(text, 0), text.size());
    std::vector<int> want;
    ASSERT_TRUE(library.Encode(text, &want).ok());
    EXPECT_EQ(tokenizer.encode(text), std::vector<int32_t>(want.begin(), want.end()));
    changed += tokenizer.encode(text) != Tokenizer(kDemoTokenizer).encode(text);
  }
  EXPECT_EQ(changed, 2);  // else the test tests nothing
}

TEST(Tokenizer, PiecesAndSpecialIds) {
  const Tokenizer tokenizer(kDemoTokenizer);
  EXPECT_EQ(tokenizer.size(), 4096);
  EXPECT_EQ(tokenizer.bos(), 2);
  EXPECT_EQ(tokenizer.piece(2), "<bos>");
  EXPECT_EQ(tokenizer.piece(tokenizer.encode(" the").at(0)), "▁the");
  EXPECT_THROW(tokenizer.piece(4096), Error);
  EXPECT_THROW(tokenizer.piece(-1), Error);
  EXPECT_THROW(tokenizer.decode({4096}), Error);
  EXPECT_THROW(tokenizer.decode({-1}), Error);
}

TEST(Tokenizer, RefusesWhatIsNoModel) {
  TempFolder folder;
  const auto written = [&](std::string_view bytes) {
    write_bytes(folder / "tokenizer.model", bytes);
    return folder / "tokenizer.model";
  };
  EXPECT_ERROR(Tokenizer(folder / "absent.model"), "absent.model");
  EXPECT_ERROR(Tokenizer(folder.path()), "folder");
  EXPECT_ERROR(Tokenizer(written("")), "empty");
  EXPECT_ERROR(Tokenizer(written("version https://git-lfs.github.com/spec/v1\n")), "git lfs pull");
  EXPECT_ERROR(Tokenizer(written("{\"version\": \"1.0\"}")), "JSON");
  EXPECT_ERROR(Tokenizer(written("Call me Ishmael.")), "not a SentencePiece model");
  const std::string model = read_bytes(kDemoTokenizer);
  EXPECT_ERROR(Tokenizer(written(std::string_view(model).substr(0, model.size() / 2 + 1))),
               "not a SentencePiece model");
  // precompiled_charsmap, of the normalizer and of the denormalizer: a table that the library does not check; also
  // behind a group, which protobuf passes over and which would hide it
  const std::string table("\x12\x05table", 7);
  for (const char spec : {'\x1A', '\x2A'})
    EXPECT_ERROR(Tokenizer(written(model + spec + '\x07' + table)), "precompiled_charsmap");
  EXPECT_ERROR(Tokenizer(written(model + "\x7B\x7C\x1A\x07" + table)), "cut short");
}

TEST(Tokenizer, SeveralThreadsAtOnce) {
  const Tokenizer tokenizer(kDemoTokenizer);
  std::string text;
  DocumentReader reader(demo_data("corpus.jsonl.zst"), {});
  ASSERT_TRUE(reader.next(text));
  const auto want = tokenizer.encode(text);
  std::vector<std::vector<int32_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got)
    threads.emplace_back([&] {
      WordEncoder words(tokenizer);
      words.encode(ids, text);
    });
  for (auto& t : threads) t.join();
  for (const auto& ids : got) EXPECT_EQ(ids, want);
}

}  // namespace
}  // namespace gsae::test
