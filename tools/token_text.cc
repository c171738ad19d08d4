#include "tools/token_text.h"

#include <fmt/format.h>

#include <charconv>

#include "kernels/check.h"

namespace gsae {

namespace {

// "<0x0A>" -> 10; -1 for other pieces.
int byte_of(const std::string& piece) {
  int value = -1;
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece.back() != '>') return -1;
  const char* end = piece.data() + 5;
  const auto [stop, error] = std::from_chars(piece.data() + 3, end, value, 16);
  return error == std::errc() && stop == end ? value : -1;
}

std::string readable_byte(int byte) {
  const bool shown = byte == '\n' || byte == '\t' || (byte >= 0x20 && byte < 0x7f);
  return shown ? std::string(1, static_cast<char>(byte)) : fmt::format("\\x{:02X}", byte);
}

}  // namespace

std::string readable_piece(const std::string& piece) {
  if (const int byte = byte_of(piece); byte >= 0) return readable_byte(byte);
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  std::string text;
  for (size_t i = 0; i < piece.size();) {
    const auto byte = static_cast<unsigned char>(piece[i]);
    if (piece.compare(i, kSpace.size(), kSpace) == 0) {
      text += ' ';
      i += kSpace.size();
    } else if (byte >= 0x80) {
      text += piece[i++];
    } else {
      text += readable_byte(byte);
      ++i;
    }
  }
  return text;
}

TokenTexts::TokenTexts(const std::string& tokenizer_model, int64_t size) : tokenizer_(tokenizer_model), size_(size) {}

std::string TokenTexts::piece(int32_t token) const {
  if (token >= tokenizer_.size() && token < size_) return fmt::format("<{}>", token);  // padding of the embedding
  return tokenizer_.piece(token);
}

}  // namespace gsae
