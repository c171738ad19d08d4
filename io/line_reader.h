#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/byte_source.h"

namespace gsae {

struct LineTooLong : BadData {
  using BadData::BadData;
};

// The lines of a source, holding one at a time.
class LineReader {
 public:
  LineReader(std::unique_ptr<ByteSource> source, size_t max_line_bytes);

  // The next line without its '\n', valid until the next call; false at the end. The last line need
  // not end in '\n'. LineTooLong for a line longer than max_line_bytes, as soon as it is: of a file that decompresses
  // to one line without end no more is read. The call after that gives the line behind it. What the source throws is
  // passed on.
  bool next(std::string_view& line);
  int64_t number() const { return number_; }  // of the line last returned or refused, from 1

 private:
  bool fill();

  std::unique_ptr<ByteSource> source_;
  size_t max_line_bytes_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // of what is in the buffer and not yet returned
  int64_t number_ = 0;
  bool refused_ = false;  // the line that was too long has not ended yet
};

}  // namespace gsae
