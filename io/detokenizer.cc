#include "io/detokenizer.h"

#include "io/utf8.h"

namespace gsae {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Whether more bytes can make these a character: those of the widest range complete any beginning that is well-formed.
bool can_go_on(const std::string& bytes) {
  for (const char* more : {"\x80", "\x80\x80", "\x80\x80\x80", "\xA0\x80", "\x90\x80\x80"}) {
    const std::string whole = bytes + more;
    if (valid_utf8_prefix(whole) == whole.size()) return true;
  }
  return false;
}

}  // namespace

std::string Detokenizer::add(int32_t id) {
  const std::string text = tokenizer_->text(id);
  // Only a byte continues a character; what is no byte is whole by itself.
  const bool is_byte = text.size() == 1 && static_cast<unsigned char>(text[0]) >= 0x80;
  if (!is_byte) return finish() + text;
  bytes_ += text;
  std::string known;
  while (!bytes_.empty()) {
    if (valid_utf8_prefix(bytes_) == bytes_.size()) {
      known += bytes_;
      bytes_.clear();
    } else if (can_go_on(bytes_)) {
      break;
    } else {
      known += kReplacement;
      bytes_.erase(0, 1);
    }
  }
  return known;
}

std::string Detokenizer::finish() {
  std::string rest;
  for (size_t i = 0; i < bytes_.size(); ++i) rest += kReplacement;
  bytes_.clear();
  return rest;
}

}  // namespace gsae
