#include "io/text_pieces.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace gsae {
namespace {

// Where to cut a text that is longer than max_bytes: see the header.
size_t cut(std::string_view text, size_t max_bytes) {
  const std::string_view head = text.substr(0, max_bytes);
  const size_t unix_blank = head.rfind("\n\n"), dos_blank = head.rfind("\r\n\r\n");
  size_t at = 0;
  if (unix_blank != head.npos) at = unix_blank + 2;
  if (dos_blank != head.npos) at = std::max(at, dos_blank + 4);
  if (at > 0) return at;
  if (const size_t line = head.rfind('\n'); line != head.npos) return line + 1;
  at = max_bytes;
  while (at > 0 && max_bytes - at < 4 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at > 0 && max_bytes - at < 4 ? at : max_bytes;  // else it is not UTF-8, and will be refused
}

}  // namespace

TextPieces::TextPieces(std::unique_ptr<ByteSource> source, size_t max_bytes)
    : source_(std::move(source)), max_bytes_(max_bytes) {}

bool TextPieces::next(std::string& piece) {
  while (!at_end_ && rest_.size() <= max_bytes_) {  // one byte more tells whether the rest is the last piece
    const size_t had = rest_.size(), want = max_bytes_ + 1 - had;
    rest_.resize(had + want);
    const size_t got = source_->read(rest_.data() + had, want);
    rest_.resize(had + got);
    at_end_ = got == 0;
  }
  if (std::exchange(first_, false) && rest_.starts_with("\xEF\xBB\xBF")) rest_.erase(0, 3);
  if (rest_.empty()) return false;
  const size_t length = rest_.size() <= max_bytes_ ? rest_.size() : cut(rest_, max_bytes_);
  piece.assign(rest_, 0, length);
  rest_.erase(0, length);
  line_ = std::exchange(next_line_, next_line_ + std::count(piece.begin(), piece.end(), '\n'));
  return true;
}

}  // namespace gsae
