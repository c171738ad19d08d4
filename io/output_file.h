#pragma once

#include <string>
#include <string_view>

namespace gsae {

// A file that appears whole or not at all: written as `path`.tmp-PID in the same folder, synced,
// and renamed over `path` by commit(). The destructor removes what was not committed. Every error
// (full disk, read-only folder) is an Error with the path and the system's reason.
class OutputFile {
 public:
  explicit OutputFile(std::string path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, size_t bytes);
  void write_at(size_t offset, const void* data, size_t bytes);
  void resize(size_t bytes);
  void commit();

 private:
  std::string path_, temporary_;
  int fd_ = -1;
};

void write_file(const std::string& path, std::string_view content);  // through OutputFile
std::string read_file(const std::string& path,
                      size_t limit);  // an Error if it is larger than limit

}  // namespace gsae
