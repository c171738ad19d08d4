#include "io/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "io/utf8.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

struct Detokenizing : testing::Test {
  Tokenizer tokenizer{demo_data("model/tokenizer.model")};

  // The pieces as they become known, the last by finish().
  std::vector<std::string> pieces(const std::vector<int32_t>& ids) const {
    Detokenizer d(tokenizer);
    std::vector<std::string> all;
    for (const int32_t id : ids) all.push_back(d.add(id));
    all.push_back(d.finish());
    return all;
  }
  std::vector<int32_t> bytes(const std::string& text) const {
    std::vector<int32_t> ids;
    for (const char c : text) {
      const char* digits = "0123456789ABCDEF";
      const auto b = static_cast<unsigned char>(c);
      ids.push_back(tokenizer.find(std::string("<0x") + digits[b / 16] + digits[b % 16] + ">"));
    }
    return ids;
  }
};

// SentencePiece's own decoding of everything at once is the oracle.
TEST_F(Detokenizing, PiecesMakeTheWholeText) {
  std::mt19937 rng(1);
  const auto characters = bytes("\xE9\xAF\xA8\xF0\x9F\x90\x8B\xC3\xA9\x80\xFF\xED\xA0\x80\xF4\x90\xE0\x80");
  for (int round = 0; round < 2000; ++round) {
    std::vector<int32_t> ids;
    for (int i = 0; i < 12; ++i) {
      const uint32_t kind = rng() % 4;
      if (kind == 0) ids.push_back(int32_t(rng() % uint32_t(tokenizer.size())));  // controls and <unk> too
      else if (kind == 1) ids.push_back(int32_t(4 + rng() % 256));
      else
        for (uint32_t n = 1 + rng() % 4, at = rng() % 16; n > 0 && at < characters.size(); --n)
          ids.push_back(characters[at++]);
    }
    std::string text;
    for (const std::string& piece : pieces(ids)) {
      EXPECT_EQ(valid_utf8_prefix(piece), piece.size()) << "a part of a character";
      text += piece;
    }
    ASSERT_EQ(text, tokenizer.decode(ids)) << round;
  }
}

TEST_F(Detokenizing, ACharacterComesWithItsLastByte) {
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(pieces(bytes("\xE9\xAF\xA8")), (Pieces{"", "", "\xE9\xAF\xA8", ""}));
  EXPECT_EQ(pieces(bytes("\xF0\x9F\x90")), (Pieces{"", "", "", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}));
  EXPECT_EQ(pieces(bytes("\xC3\xC3\xA9")), (Pieces{"", "\xEF\xBF\xBD", "\xC3\xA9", ""}));
  EXPECT_EQ(pieces(bytes("A\xFF")), (Pieces{"A", "\xEF\xBF\xBD", ""}));
}

TEST_F(Detokenizing, SpacesAndControls) {
  const int32_t the = tokenizer.find("\xE2\x96\x81the");
  ASSERT_GE(the, 0);
  EXPECT_EQ(tokenizer.text(the), " the");
  EXPECT_EQ(tokenizer.text(tokenizer.bos()), "");
  EXPECT_EQ(tokenizer.find("no such piece"), -1);
  EXPECT_EQ(tokenizer.piece(tokenizer.find("<unk>")), "<unk>");
  EXPECT_EQ(pieces({tokenizer.bos(), the, the}), (std::vector<std::string>{"", " the", " the", ""}));
}

}  // namespace
}  // namespace gsae::test
