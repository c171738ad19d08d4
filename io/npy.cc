#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <cstring>
#include <string_view>

#include "io/npz.h"
#include "io/output_file.h"
#include "kernels/check.h"

namespace gsae {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeader = 1 << 16;  // numpy itself refuses to evaluate more than 10000 characters

[[noreturn]] void refuse(const std::string& what, const std::string& reason) {
  throw Error(fmt::format("{}: not a usable npy array: {}", what, reason));
}

// The bytes of an element of a descr such as "<f4"; 0: not one that we know.
size_t bytes_of(std::string_view descr) {
  if (descr == "|O") return 8;
  if (descr.size() < 3 || (descr[0] != '<' && descr[0] != '|')) return 0;
  const std::string_view digits = descr.substr(2);
  uint32_t n = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
  if (error != std::errc() || end != digits.data() + digits.size() || n == 0 || n > 1 << 20) return 0;
  switch (descr[1]) {
    case 'b': return n == 1 ? n : 0;
    case 'i':
    case 'u': return n == 1 || n == 2 || n == 4 || n == 8 ? n : 0;
    case 'f': return n == 2 || n == 4 || n == 8 || n == 16 ? n : 0;
    case 'c': return n == 8 || n == 16 || n == 32 ? n : 0;
    case 'U': return 4 * n;
    case 'S':
    case 'V': return n;
    default: return 0;
  }
}

// Reads the Python dictionary of a header, and no other Python:
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class Dictionary {
 public:
  Dictionary(const std::string& what, std::string_view text) : what_(what), text_(text) {}

  void parse(NpyHeader& header) {
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr) descr = true, header.descr = parse_descr();
      else if (key == "fortran_order" && !order) order = true, fortran_ = boolean();
      else if (key == "shape" && !shape) shape = true, parse_shape(header.shape);
      else refuse(what_, fmt::format("its header holds '{:.40}' where it should not", key));
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip();
    if (at_ != text_.size()) refuse(what_, "there is something behind the dictionary of its header");
    if (!descr || !order || !shape) refuse(what_, "its header lacks descr, fortran_order or shape");
  }
  bool fortran() const { return fortran_; }

 private:
  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse(what_, fmt::format("its header has no '{}' at character {}", c, at_));
  }
  std::string quoted() {
    const char quote = take('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = text_.find(quote, at_);
    if (end == text_.npos) refuse(what_, "a string in its header does not end");
    const std::string s(text_.substr(at_, end - at_));
    at_ = end + 1;
    return s;
  }
  std::string parse_descr() {
    if (take('[')) refuse(what_, "it has records (a structured dtype); save each field as an array of its own");
    const std::string d = quoted();
    if (d.starts_with('>')) refuse(what_, fmt::format("{:.20} is big-endian; save it in little-endian order", d));
    if (bytes_of(d) == 0) refuse(what_, fmt::format("unknown dtype '{:.20}'", d));
    return d;
  }
  bool boolean() {
    skip();
    for (const std::string_view word : {"True", "False"}) {
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return word == "True";
    }
    refuse(what_, "fortran_order is neither True nor False");
  }
  void parse_shape(std::vector<int64_t>& shape) {
    expect('(');
    while (!take(')')) {
      skip();
      int64_t n = -1;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), n);
      if (error != std::errc() || n < 0) refuse(what_, "its shape holds something else than sizes");
      at_ = static_cast<size_t>(end - text_.data());
      take('L');  // as Python 2 wrote long integers
      shape.push_back(n);
      if (shape.size() > 64) refuse(what_, "its shape has more than 64 dimensions");
      if (!take(',')) {
        expect(')');
        break;
      }
    }
  }

  const std::string& what_;
  std::string_view text_;
  size_t at_ = 0;
  bool fortran_ = false;
};

}  // namespace

int64_t NpyHeader::size() const {
  int64_t n = 1;
  for (const int64_t dim : shape) n *= dim;
  return n;
}
size_t NpyHeader::element_bytes() const { return bytes_of(descr); }
size_t NpyHeader::bytes() const { return static_cast<size_t>(size()) * element_bytes(); }

NpyHeader parse_npy(const std::string& what, const void* bytes, size_t size, bool allow_fortran) {
  const std::string_view all(static_cast<const char*>(bytes), size);
  if (size < 10 || !all.starts_with(kMagic)) refuse(what, "it does not begin with an npy header");
  const int version = static_cast<unsigned char>(all[6]);
  if (version < 1 || version > 3 || all[7] != 0)
    refuse(what, fmt::format("version {}.{} of the format is unknown", version, int{all[7]}));
  const size_t digits = version == 1 ? 2 : 4, begin = 8 + digits;
  uint32_t length = 0;
  if (size < begin) refuse(what, "it ends within its header");
  std::memcpy(&length, all.data() + 8, digits);
  if (length > kMaxHeader) refuse(what, fmt::format("its header claims {} bytes", length));
  if (length > size - begin) refuse(what, "it ends within its header");

  NpyHeader header;
  Dictionary dictionary(what, all.substr(begin, length));
  dictionary.parse(header);
  header.data_offset = begin + length;
  int64_t n = 1, total = 0;
  bool overflow = false;
  for (const int64_t dim : header.shape) overflow |= __builtin_mul_overflow(n, dim, &n);
  overflow |= __builtin_mul_overflow(n, static_cast<int64_t>(header.element_bytes()), &total);
  if (overflow) refuse(what, fmt::format("shape ({}) overflows", fmt::join(header.shape, ", ")));
  header.fortran_order = dictionary.fortran() && header.shape.size() > 1;
  if (header.fortran_order && !allow_fortran)
    refuse(what, "it is in Fortran order; save numpy.ascontiguousarray of it");
  return header;
}

std::string npy_header(const std::string& descr, const std::vector<int64_t>& shape) {
  if (bytes_of(descr) == 0) throw Error(fmt::format("npy: unknown dtype '{}'", descr));
  std::string dims;
  for (const int64_t dim : shape) dims += fmt::format("{}{}", dim, shape.size() == 1 ? "," : ", ");
  if (shape.size() > 1) dims.resize(dims.size() - 2);
  std::string text = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", descr, dims);
  const size_t total = (10 + text.size() + 1 + 63) / 64 * 64;
  text.resize(total - 11, ' ');
  text += '\n';
  if (text.size() > 0xffff) throw Error("npy: too many dimensions");
  const auto length = static_cast<uint16_t>(text.size());
  std::string header(kMagic);
  header += '\1';
  header += '\0';
  header.append(reinterpret_cast<const char*>(&length), 2);
  return header + text;
}

void write_npy(const std::string& path, const std::string& descr, const std::vector<int64_t>& shape, const void* data) {
  const std::string header = npy_header(descr, shape);
  const NpyHeader checked = parse_npy(path, header.data(), header.size());
  OutputFile file(path);
  file.write(header.data(), header.size());
  file.write(data, checked.bytes());
  file.commit();
}

}  // namespace gsae
