#pragma once

#include <string>

#include "io/tokenizer.h"

namespace gsae {

// The text of tokens that come one by one. What add() and finish() return, put together, is what Tokenizer::decode()
// makes of all ids, for tokenizers that put no space in front of a text (Gemma's); it is always whole UTF-8.
class Detokenizer {
 public:
  explicit Detokenizer(const Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // The text that is certain with this token: nothing while a character has only some of its bytes, which tokens may
  // stand for one at a time.
  std::string add(int32_t id);
  // The rest: each byte of a character that will not be completed is U+FFFD, as bytes are that belong to none.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  std::string bytes_;  // of a character that has begun
};

}  // namespace gsae
