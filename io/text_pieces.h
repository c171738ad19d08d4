#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/byte_source.h"

namespace gsae {

// A text file in pieces of at most max_bytes, so that a huge one is never held whole: all of it if
// it is no longer than that; else up to and with the last blank line of the first max_bytes, else
// the last line end, else the last whole UTF-8 character; and so on with the rest. The pieces put
// together are the file's bytes (less a byte order mark in front).
class TextPieces {
 public:
  TextPieces(std::unique_ptr<ByteSource> source, size_t max_bytes);

  bool next(std::string& piece);                    // false at the end; what the source throws is passed on
  int64_t line() const { return line_; }            // on which the piece last returned begins, from 1
  int64_t next_line() const { return next_line_; }  // on which the next one will begin

 private:
  std::unique_ptr<ByteSource> source_;
  size_t max_bytes_;
  std::string rest_;
  bool first_ = true, at_end_ = false;
  int64_t line_ = 1, next_line_ = 1;
};

}  // namespace gsae
