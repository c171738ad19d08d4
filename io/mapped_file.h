#pragma once

#include <cstddef>
#include <string>

namespace gsae {

// A regular file mapped read-only for the life of the object. Move-only. An Error with the path and
// the system's reason if it cannot be opened, is a folder, or cannot be mapped; size 0 is allowed.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& o) noexcept;
  MappedFile& operator=(MappedFile&& o) noexcept;

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gsae
