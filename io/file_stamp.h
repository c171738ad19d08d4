#pragma once

#include <cstdint>
#include <string>

namespace gsae {

// What tells whether a file is still the one that it was, without reading all of it: its size, and the
// XXH3_64 of its first 64 KiB, its last 64 KiB (of a file shorter than both, all bytes once) and its
// size as eight little-endian bytes. Not its time: a copy is the same file. A change in the middle that
// keeps the size is not seen. Standard input, "-", has bytes -1 and hash 0.
struct FileStamp {
  std::string path;
  int64_t bytes = -1;
  uint64_t hash = 0;
  bool operator==(const FileStamp&) const = default;
};

FileStamp stamp_file(const std::string& path);  // an Error if it cannot be read

}  // namespace gsae
