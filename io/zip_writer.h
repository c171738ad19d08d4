#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "io/output_file.h"

namespace gsae {

// Writes a zip archive of stored members into a file, straight from memory: libzip would do, but
// it neither syncs nor names its temporary file as OutputFile does. The time of every member is the
// format's first, so that equal content gives equal bytes.
//
// Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3 (zip64).
class ZipWriter {
 public:
  // Sizes and offsets of `zip64_from` and more are written in zip64 form; tests lower it.
  explicit ZipWriter(OutputFile& file, uint64_t zip64_from = 0xffffffff) : file_(file), zip64_from_(zip64_from) {}

  // The pieces one after the other, their first byte at a multiple of `alignment` of the file (1: anywhere), up to
  // 4096.
  void add(const std::string& name, std::initializer_list<std::string_view> pieces, uint64_t alignment = 1);
  void finish();  // then commit the file

 private:
  void write(std::string_view bytes);

  OutputFile& file_;
  uint64_t zip64_from_;
  uint64_t offset_ = 0, members_ = 0;
  std::string directory_;
};

}  // namespace gsae
