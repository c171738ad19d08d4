#pragma once

#include <cstdint>
#include <memory>
#include <string>

struct zip;
struct zip_file;

namespace gsae {

// A zip archive to read, through libzip; nothing in it is trusted. Errors begin with the path and end with what to do.
class ZipArchive {
 public:
  // kind: what the file should be, for Errors: "npz", "a PyTorch file".
  ZipArchive(std::string path, const std::string& kind);

  const std::string& path() const { return path_; }
  int64_t members() const;
  std::string name(int64_t member) const;  // "" if the directory has none

 private:
  friend class ZipMember;
  struct Close {
    void operator()(zip* z) const;
  };
  std::string path_;
  uint64_t bytes_ = 0;
  std::unique_ptr<zip, Close> archive_;
};

// One member, stored or deflated, read from its beginning. It has been checked that it is not encrypted and that the
// size it claims can be true: no memory need be taken on its word beyond what the archive can hold.
class ZipMember {
 public:
  ZipMember(ZipArchive& archive, int64_t member);

  const std::string& what() const { return what_; }  // "FILE, member NAME"
  uint64_t size() const { return size_; }            // as it claims
  uint64_t stored() const { return stored_; }        // in the archive

  size_t read(void* out, size_t bytes);    // fewer only at the end
  void read_all(void* out, size_t bytes);  // an Error if it ends before
  void skip(uint64_t bytes);               // the same, to nowhere
  void expect_end();                       // an Error if there is more, or if the checksum is wrong
  [[noreturn]] void refuse(const std::string& reason) const;

 private:
  struct Close {
    void operator()(zip_file* f) const;
  };
  std::string what_;
  uint64_t size_ = 0, stored_ = 0;
  std::unique_ptr<zip_file, Close> file_;
};

bool is_zip(const std::string& path);  // starts with a zip signature

// Floating-point elements as files hold them, little-endian.
enum class StoredFloat { kF64, kF32, kF16, kBF16 };
size_t bytes_of(StoredFloat type);

// The next n elements, through a small buffer: an f64 array is never in memory whole.
void read_floats(float* out, size_t n, ZipMember& member, StoredFloat type);
// The same for a matrix whose columns come one after the other; out is row-major.
void read_columns(float* out, size_t rows, size_t columns, ZipMember& member, StoredFloat type);

}  // namespace gsae
