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
  while (true) {
    const char* start = buffer_.data() + begin_;
    const void* newline =
        end_ > begin_ + searched ? std::memchr(start + searched, '\n', end_ - begin_ - searched) : nullptr;
    const size_t length = newline ? static_cast<size_t>(static_cast<const char*>(newline) - start) : end_ - begin_;
    const size_t taken = length + (newline != nullptr);
    if (refused_) {
      begin_ += taken;
      refused_ = !newline;
      if (refused_ && !fill()) return false;
      continue;
    }
    if (length > max_line_bytes_) {
      ++number_;
      begin_ += taken;
      refused_ = !newline;
      throw LineTooLong(fmt::format("the line is longer than {} MiB", max_line_bytes_ >> 20));
    }
    if (!newline) {
      searched = length;
      if (fill()) continue;
      if (length == 0) return false;
    }
    ++number_;
    line = {buffer_.data() + begin_, length};  // fill() may have moved it
    begin_ += taken;
    return true;
  }
}

}  // namespace gsae
