#include "io/zip_reader.h"

#include <fmt/format.h>
#include <zip.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "io/half.h"
#include "kernels/bf16.h"
#include "kernels/check.h"

namespace gsae {
namespace {

// Deflate cannot do better than 258 bytes for 2 bits, so a member that claims more is lying about
// its size, and no memory is taken on its word.
constexpr uint64_t kMaxDeflate = 1032;

template <class T, class F> void widen(float* out, const char* p, size_t n, F f) {
  for (size_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, p + i * sizeof v, sizeof v);
    out[i] = f(v);
  }
}

}  // namespace

void ZipArchive::Close::operator()(zip* z) const { zip_discard(z); }
void ZipMember::Close::operator()(zip_file* f) const { zip_fclose(f); }

ZipArchive::ZipArchive(std::string path, const std::string& kind) : path_(std::move(path)) {
  int code = 0;
  archive_.reset(zip_open(path_.c_str(), ZIP_RDONLY, &code));
  if (!archive_) {
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    const std::string reason = zip_error_strerror(&error);
    zip_error_fini(&error);
    throw Error(
        fmt::format("{}: cannot be read as {} (a zip archive): {}; download or write it again", path_, kind, reason));
  }
  bytes_ = std::filesystem::file_size(path_);
}

int64_t ZipArchive::members() const { return zip_get_num_entries(archive_.get(), 0); }

std::string ZipArchive::name(int64_t member) const {
  const char* name = zip_get_name(archive_.get(), static_cast<zip_uint64_t>(member), 0);
  return name ? name : "";
}

ZipMember::ZipMember(ZipArchive& archive, int64_t member)
    : what_(fmt::format("{}, member {:.80}", archive.path(), archive.name(member))) {
  const auto index = static_cast<zip_uint64_t>(member);
  zip_stat_t st;
  constexpr uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if (zip_stat_index(archive.archive_.get(), index, 0, &st) != 0 || (st.valid & kNeeded) != kNeeded)
    refuse("its entry in the directory is damaged");
  if (st.encryption_method != ZIP_EM_NONE) refuse("it is encrypted");
  if (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE)
    refuse("it is neither stored nor deflated, as numpy and PyTorch write it");
  const bool stored = st.comp_method == ZIP_CM_STORE;
  if (st.comp_size > archive.bytes_ || (stored ? st.size != st.comp_size : st.size / kMaxDeflate > st.comp_size))
    refuse(fmt::format("it claims {} bytes in {} of {}", st.size, st.comp_size, archive.bytes_));
  size_ = st.size, stored_ = st.comp_size;
  file_.reset(zip_fopen_index(archive.archive_.get(), index, 0));
  if (!file_) refuse(zip_strerror(archive.archive_.get()));
}

size_t ZipMember::read(void* out, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    const zip_int64_t n = zip_fread(file_.get(), static_cast<char*>(out) + done, bytes - done);
    if (n < 0) refuse(zip_file_strerror(file_.get()));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  return done;
}

void ZipMember::read_all(void* out, size_t bytes) {
  if (read(out, bytes) != bytes) refuse("it is cut short");
}

void ZipMember::skip(uint64_t bytes) {
  std::vector<char> nowhere(std::min<uint64_t>(bytes, 1 << 16));
  for (; bytes > 0; bytes -= std::min<uint64_t>(bytes, nowhere.size()))
    read_all(nowhere.data(), std::min<uint64_t>(bytes, nowhere.size()));
}

void ZipMember::expect_end() {
  char more = 0;  // libzip compares the checksum only when it is asked for what is behind the end
  if (read(&more, 1) != 0) refuse("it is longer than it claims");
}

void ZipMember::refuse(const std::string& reason) const {
  throw Error(fmt::format("{}: {}; download or write it again", what_, reason));
}

bool is_zip(const std::string& path) {
  char start[4] = {};
  std::ifstream(path, std::ios::binary).read(start, 4);
  return std::memcmp(start, "PK\3\4", 4) == 0 || std::memcmp(start, "PK\5\6", 4) == 0;  // the second: no members
}

size_t bytes_of(StoredFloat type) {
  switch (type) {
    case StoredFloat::kF64: return 8;
    case StoredFloat::kF32: return 4;
    case StoredFloat::kF16:
    case StoredFloat::kBF16: return 2;
  }
  return 0;
}

void read_floats(float* out, size_t n, ZipMember& member, StoredFloat type) {
  if (type == StoredFloat::kF32) return member.read_all(out, n * sizeof(float));
  const size_t width = bytes_of(type);
  std::vector<char> buffer(size_t{1} << 20);
  for (size_t i = 0; i < n;) {
    const size_t m = std::min(n - i, buffer.size() / width);
    member.read_all(buffer.data(), m * width);
    if (type == StoredFloat::kF64)
      widen<double>(out + i, buffer.data(), m, [](double v) { return static_cast<float>(v); });
    else if (type == StoredFloat::kF16) widen<uint16_t>(out + i, buffer.data(), m, half_to_float);
    else widen<uint16_t>(out + i, buffer.data(), m, [](uint16_t b) { return to_float(BF16{b}); });
    i += m;
  }
}

// 16 columns at a time, so that each cache line of `out` is written once.
void read_columns(float* out, size_t rows, size_t columns, ZipMember& member, StoredFloat type) {
  if (rows == 0) return;  // of any number of columns
  constexpr size_t kBlock = 16;
  std::vector<float> block(std::min(kBlock, columns) * rows);
  for (size_t j = 0; j < columns; j += kBlock) {
    const size_t m = std::min(kBlock, columns - j);
    read_floats(block.data(), m * rows, member, type);
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < m; ++c) out[r * columns + j + c] = block[c * rows + r];
  }
}

}  // namespace gsae
