#include "io/line_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace gsae {
namespace {

constexpr size_t kReadBytes = size_t{256} << 10;

}  // namespace

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes)
    : source_(std::move(source)), max_line_bytes_(max_line_bytes) {}

// More bytes behind end_; false at the end of the source.
bool LineReader::fill() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() < end_ + kReadBytes) buffer_.resize(std::max(end_ + kReadBytes, buffer_.size() * 2));
  const size_t got = source_->read(buffer_.data() + end_, kReadBytes);
  end_ += got;
  return got > 0;
}

bool LineReader::next(std::string_view& line) {
  size_t searched = 0;  // bytes from begin_ on that hold no newline
  bool too_long = false;
  while (true) {
    const char* start = buffer_.data() + begin_;
    const void* newline =
        end_ > begin_ + searched ? std::memchr(start + searched, '\n', end_ - begin_ - searched) : nullptr;
    size_t length = newline ? static_cast<size_t>(static_cast<const char*>(newline) - start) : end_ - begin_;
    if (length > max_line_bytes_) too_long = true;
    if (!newline) {
      if (too_long) begin_ = end_, length = 0;  // not to be held
      searched = length;
      if (fill()) continue;
      if (length == 0 && !too_long) return false;
    }
    ++number_;
    line = {buffer_.data() + begin_, length};  // fill() may have moved it
    begin_ += length + (newline != nullptr);
    if (too_long) throw LineTooLong(fmt::format("the line is longer than {} MiB", max_line_bytes_ >> 20));
    return true;
  }
}

}  // namespace gsae
