#pragma once

#include <string>
#include <vector>

#include "io/tokenizer.h"

namespace gsae {

// A piece as people read it: the space mark as a space, a byte piece as its character where that is ASCII (a line end
// for <0x0A>) and as \xE2 otherwise, control characters as \x07. UTF-8.
std::string readable_piece(const std::string& piece);

// The strings of all tokens of a vocabulary of `size` (the model's, which may be larger than the tokenizer's).
class TokenTexts {
 public:
  TokenTexts(const std::string& tokenizer_model, int64_t size);

  std::string piece(int32_t token) const;  // as stored: "▁the"
  std::string text(int32_t token) const { return readable_piece(piece(token)); }

 private:
  Tokenizer tokenizer_;
  int64_t size_;
};

}  // namespace gsae
