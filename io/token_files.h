#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "io/safetensors.h"

namespace gsae {

// A file of tokens, mapped: .npy (int32, uint16, uint32, int64), .bin (bare little-endian uint16 or
// uint32, as `bin_dtype` says), or .safetensors (the tensor `tokens`: I32, I64, U16, U32). One
// dimension is a stream, two are rows. An Error names the file and what is wrong: another dtype or
// rank, no tokens, a size that does not fit.
class TokenFile {
 public:
  TokenFile(const std::string& path, const std::string& bin_dtype);

  const std::string& path() const { return path_; }
  bool is_stream() const { return stream_; }
  int64_t rows() const { return rows_; }    // 1 for a stream
  int64_t width() const { return width_; }  // tokens of a row, or of the stream

  // Tokens [begin, begin + n) of a row. An Error with the file, row and position for an id outside
  // [0, vocab_size); 0 stands for any size.
  void read(int32_t* out, int64_t row, int64_t begin, int64_t n, int64_t vocab_size) const;

 private:
  enum class Type { kU16, kU32, kI32, kI64 };
  void set_shape(const std::vector<int64_t>& shape);

  std::string path_;
  MappedFile file_;
  std::optional<SafetensorsFile> safetensors_;
  const std::byte* data_ = nullptr;
  Type type_ = Type::kI32;
  bool stream_ = false;
  int64_t rows_ = 0, width_ = 0;
};

// Cuts a stream into documents: before each BOS, behind each EOS, and after kMaxTokens where neither
// comes sooner. The documents put together are the stream.
class StreamDocuments {
 public:
  static constexpr int64_t kMaxTokens = int64_t{1} << 18;

  StreamDocuments(const TokenFile& file, int32_t bos, int32_t eos, int64_t vocab_size)
      : file_(file), bos_(bos), eos_(eos), vocab_size_(vocab_size) {}

  bool next(std::vector<int32_t>& ids);        // false at the end
  int64_t position() const { return begin_; }  // of what comes next

 private:
  const TokenFile& file_;
  int32_t bos_, eos_;
  int64_t vocab_size_;
  int64_t begin_ = 0;           // of the next document
  int64_t read_ = 0;            // tokens read from the file
  std::vector<int32_t> ahead_;  // [read_ - ahead_.size(), read_)
};

}  // namespace gsae
