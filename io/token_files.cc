#include "io/token_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "io/npz.h"
#include "kernels/check.h"

namespace gsae {
namespace {

// Widens n little-endian elements; false at the first that is no id, whose index is put in `at`.
template <class T> bool widen(int32_t* out, const std::byte* in, int64_t n, int64_t limit, int64_t& at) {
  for (int64_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, in + static_cast<size_t>(i) * sizeof(T), sizeof(T));  // a file may lay it at any offset
    const auto wide = static_cast<int64_t>(value);
    if (wide < 0 || wide >= limit) return at = i, false;
    out[i] = static_cast<int32_t>(wide);
  }
  return true;
}

constexpr size_t bytes_of(bool two, bool eight) { return two ? 2 : eight ? 8 : 4; }

}  // namespace

TokenFile::TokenFile(const std::string& path, const std::string& bin_dtype) : path_(path) {
  const auto type_of = [&](const std::string& name) {
    if (name == "<u2" || name == "U16" || name == "uint16") return Type::kU16;
    if (name == "<u4" || name == "U32" || name == "uint32") return Type::kU32;
    if (name == "<i4" || name == "I32") return Type::kI32;
    if (name == "<i8" || name == "I64") return Type::kI64;
    throw Error(fmt::format("{}: tokens of type {}; accepted are uint16, uint32, int32 and int64", path, name));
  };
  if (path.ends_with(".safetensors")) {
    const SafetensorsFile& file = safetensors_.emplace(path);
    const StoredTensor& tokens = file.get("tokens");
    type_ = type_of(tokens.dtype);
    data_ = tokens.data;
    set_shape(tokens.shape);
    return;
  }
  file_ = MappedFile(path);
  if (file_.size() == 0) throw Error(fmt::format("{} is empty", path));
  if (path.ends_with(".npy")) {
    const NpyHeader header = parse_npy(path, file_.data(), file_.size());
    type_ = type_of(header.descr);
    data_ = file_.data() + header.data_offset;
    set_shape(header.shape);
    const size_t element = header.element_bytes(), stored = file_.size() - header.data_offset;
    const auto tokens = static_cast<int64_t>(stored / element);
    if (stored % element != 0 || tokens % width_ != 0 || tokens / width_ != rows_)
      throw Error(
          fmt::format("{}: {} bytes of data, but its header says {} x {} tokens of {} bytes: the file is "
                      "truncated or corrupt",
                      path, stored, rows_, width_, element));
    return;
  }
  type_ = type_of(bin_dtype);
  data_ = file_.data();
  const size_t element = bytes_of(type_ == Type::kU16, false);
  if (file_.size() % element != 0)
    throw Error(
        fmt::format("{}: {} bytes are not a whole number of {} tokens: the file is truncated, or "
                    "--token-dtype is wrong",
                    path, file_.size(), bin_dtype));
  set_shape({static_cast<int64_t>(file_.size() / element)});
}

void TokenFile::set_shape(const std::vector<int64_t>& shape) {
  if (shape.size() != 1 && shape.size() != 2)
    throw Error(
        fmt::format("{}: tokens in {} dimensions; accepted are 1 (a stream) and 2 (rows)", path_, shape.size()));
  stream_ = shape.size() == 1;
  rows_ = stream_ ? 1 : shape[0];
  width_ = shape.back();
  if (rows_ <= 0 || width_ <= 0) throw Error(fmt::format("{}: no tokens in it", path_));
}

void TokenFile::read(int32_t* out, int64_t row, int64_t begin, int64_t n, int64_t vocab_size) const {
  const int64_t limit = vocab_size > 0 ? vocab_size : std::numeric_limits<int32_t>::max();
  const size_t element = bytes_of(type_ == Type::kU16, type_ == Type::kI64);
  const std::byte* in = data_ + static_cast<size_t>(row * width_ + begin) * element;
  int64_t at = 0;
  bool good = false;
  switch (type_) {
    case Type::kU16: good = widen<uint16_t>(out, in, n, limit, at); break;
    case Type::kU32: good = widen<uint32_t>(out, in, n, limit, at); break;
    case Type::kI32: good = widen<int32_t>(out, in, n, limit, at); break;
    case Type::kI64: good = widen<int64_t>(out, in, n, limit, at); break;
  }
  if (!good)
    throw Error(
        fmt::format("{}: row {}, position {}: the id is outside the vocabulary of {}; these are tokens of "
                    "another tokenizer, or of another --token-dtype",
                    path_, row, begin + at, limit));
}

bool StreamDocuments::next(std::vector<int32_t>& ids) {
  ids.clear();
  while (true) {
    const int64_t ahead = read_ - begin_;
    const int32_t* tokens = ahead_.data() + (static_cast<int64_t>(ahead_.size()) - ahead);
    const int64_t most = std::min(ahead, kMaxTokens - static_cast<int64_t>(ids.size()));
    int64_t n = 0;
    bool complete = false;
    for (; n < most && !complete; ++n) {
      if (tokens[n] == bos_ && !(n == 0 && ids.empty())) break;
      complete = tokens[n] == eos_;
    }
    complete = complete || n < most;  // in front of a BOS
    ids.insert(ids.end(), tokens, tokens + n);
    begin_ += n;
    if (complete || static_cast<int64_t>(ids.size()) == kMaxTokens) return true;
    const int64_t more = std::min(kMaxTokens, file_.width() - read_);
    if (more == 0) return !ids.empty();
    ahead_.resize(static_cast<size_t>(more));
    file_.read(ahead_.data(), 0, read_, more, vocab_size_);
    read_ += more;
  }
}

}  // namespace gsae
