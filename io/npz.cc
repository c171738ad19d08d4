#include "io/npz.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <zip.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "io/half.h"
#include "io/zip_writer.h"
#include "kernels/bf16.h"
#include "kernels/check.h"

namespace gsae {
namespace {

// Deflate cannot do better than 258 bytes for 2 bits, so a member that claims more is lying about
// its size, and no memory is taken on its word.
constexpr uint64_t kMaxDeflate = 1032;

struct Close {
  void operator()(zip_t* z) const { zip_discard(z); }
  void operator()(zip_file_t* f) const { zip_fclose(f); }
};
using Archive = std::unique_ptr<zip_t, Close>;
using Member = std::unique_ptr<zip_file_t, Close>;

Archive open_archive(const std::string& path) {
  int code = 0;
  Archive archive(zip_open(path.c_str(), ZIP_RDONLY, &code));
  if (archive) return archive;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string reason = zip_error_strerror(&error);
  zip_error_fini(&error);
  throw Error(fmt::format("{}: cannot be read as npz (a zip archive): {}; download or write it again", path, reason));
}

// One member, read from its beginning. what: "FILE, member NAME", for Errors.
class MemberReader {
 public:
  MemberReader(zip_t* archive, uint64_t archive_bytes, uint64_t index, std::string what) : what_(std::move(what)) {
    zip_stat_t st;
    constexpr uint64_t kNeeded = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(archive, index, 0, &st) != 0 || (st.valid & kNeeded) != kNeeded)
      refuse("its entry in the directory is damaged");
    if (st.encryption_method != ZIP_EM_NONE) refuse("it is encrypted");
    if (st.comp_method != ZIP_CM_STORE && st.comp_method != ZIP_CM_DEFLATE)
      refuse("it is neither stored nor deflated; write it with numpy.savez or savez_compressed");
    const bool stored = st.comp_method == ZIP_CM_STORE;
    if (st.comp_size > archive_bytes || (stored ? st.size != st.comp_size : st.size / kMaxDeflate > st.comp_size))
      refuse(fmt::format("it claims {} bytes in {} of {}", st.size, st.comp_size, archive_bytes));
    size_ = st.size, stored_ = st.comp_size;
    file_.reset(zip_fopen_index(archive, index, 0));
    if (!file_) refuse(zip_strerror(archive));
  }

  uint64_t size() const { return size_; }  // as it claims
  uint64_t stored() const { return stored_; }

  size_t read(void* out, size_t bytes) {  // fewer only at the end
    size_t done = 0;
    while (done < bytes) {
      const zip_int64_t n = zip_fread(file_.get(), static_cast<char*>(out) + done, bytes - done);
      if (n < 0) refuse(zip_file_strerror(file_.get()));
      if (n == 0) break;
      done += static_cast<size_t>(n);
    }
    return done;
  }
  void read_all(void* out, size_t bytes) {
    if (read(out, bytes) != bytes) refuse("it is cut short");
  }
  [[noreturn]] void refuse(const std::string& reason) const {
    throw Error(fmt::format("{}: {}; download or write it again", what_, reason));
  }

 private:
  std::string what_;
  uint64_t size_ = 0, stored_ = 0;
  Member file_;
};

NpyHeader read_header(MemberReader& member, const std::string& what) {
  std::string bytes(12, '\0');
  bytes.resize(member.read(bytes.data(), bytes.size()));
  if (bytes.size() == 12) {
    const bool one = bytes[6] == 1;
    uint32_t length = 0;
    std::memcpy(&length, bytes.data() + 8, one ? 2 : 4);
    // parse_npy refuses longer headers; 12 bytes, of which version 1.0 has used two, are there.
    const size_t rest = std::min<size_t>(length, 1 << 16) - (one ? std::min<uint32_t>(length, 2) : 0);
    bytes.resize(12 + rest);
    bytes.resize(12 + member.read(bytes.data() + 12, rest));
  }
  return parse_npy(what, bytes.data(), bytes.size(), true);
}

template <class T, class F> void widen(float* out, const char* p, size_t n, F f) {
  for (size_t i = 0; i < n; ++i) {
    T v;
    std::memcpy(&v, p + i * sizeof v, sizeof v);
    out[i] = f(v);
  }
}

bool is_float(const std::string& descr) {
  return descr == "<f2" || descr == "<f4" || descr == "<f8" || descr == "|V2" || descr == "<V2";
}

// The next n elements, through a small buffer: an f64 array is never in memory whole.
void read_run(float* out, size_t n, MemberReader& member, const NpyHeader& header) {
  if (header.descr == "<f4") return member.read_all(out, n * 4);
  const size_t width = header.element_bytes();
  std::vector<char> buffer(size_t{1} << 20);
  for (size_t i = 0; i < n;) {
    const size_t m = std::min(n - i, buffer.size() / width);
    member.read_all(buffer.data(), m * width);
    if (header.descr == "<f8") widen<double>(out + i, buffer.data(), m, [](double v) { return static_cast<float>(v); });
    else if (header.descr == "<f2") widen<uint16_t>(out + i, buffer.data(), m, half_to_float);
    else widen<uint16_t>(out + i, buffer.data(), m, [](uint16_t b) { return to_float(BF16{b}); });
    i += m;
  }
}

// Columns come one after the other: 16 at a time, so that each cache line of `out` is written once.
void read_columns(float* out, MemberReader& member, const NpyHeader& header) {
  const auto rows = static_cast<size_t>(header.shape[0]), columns = static_cast<size_t>(header.shape[1]);
  constexpr size_t kBlock = 16;
  std::vector<float> block(std::min(kBlock, columns) * rows);
  for (size_t j = 0; j < columns; j += kBlock) {
    const size_t m = std::min(kBlock, columns - j);
    read_run(block.data(), m * rows, member, header);
    for (size_t r = 0; r < rows; ++r)
      for (size_t c = 0; c < m; ++c) out[r * columns + j + c] = block[c * rows + r];
  }
}

// use(name, header, member) for every .npy member, read up to the end of its header.
template <class F> void each_array(const std::string& path, F&& use) {
  const Archive archive = open_archive(path);
  const uint64_t archive_bytes = std::filesystem::file_size(path);
  const zip_int64_t members = zip_get_num_entries(archive.get(), 0);
  for (zip_int64_t i = 0; i < members; ++i) {
    const char* raw = zip_get_name(archive.get(), static_cast<zip_uint64_t>(i), 0);
    std::string name = raw ? raw : "";
    if (!name.ends_with(".npy")) continue;
    const std::string what = fmt::format("{}, member {:.80}", path, name);
    name.resize(name.size() - 4);
    MemberReader member(archive.get(), archive_bytes, static_cast<uint64_t>(i), what);
    const NpyHeader header = read_header(member, what);
    const bool pickled = header.descr == "|O";  // Python objects, of any length; nothing for us
    if (!pickled && (member.size() < header.data_offset || member.size() - header.data_offset != header.bytes()))
      member.refuse(fmt::format("it has {} bytes, but {}({}) needs {}", member.size(), header.descr,
                                fmt::join(header.shape, ", "), header.data_offset + header.bytes()));
    use(name, header, member);
  }
}

}  // namespace

std::map<std::string, NpzArray> read_npz(const std::string& path, size_t max_bytes) {
  std::map<std::string, NpzArray> arrays;
  uint64_t taken = 0;
  each_array(path, [&](const std::string& name, const NpyHeader& header, MemberReader& member) {
    if (!is_float(header.descr)) return;
    if (header.fortran_order && header.shape.size() != 2)
      member.refuse("it is in Fortran order, with more than two dimensions");
    const auto n = static_cast<uint64_t>(header.size());
    if (n > (max_bytes - taken) / sizeof(float))
      member.refuse(fmt::format("with it the arrays take more than the {} bytes that are allowed", max_bytes));
    taken += n * sizeof(float);
    const auto [it, inserted] = arrays.emplace(name, NpzArray{header.shape, {}});
    if (!inserted) member.refuse("the archive has two members of this name");
    it->second.values.resize(n);
    float* values = it->second.values.data();
    if (header.fortran_order) read_columns(values, member, header);
    else read_run(values, n, member, header);
    char more = 0;  // libzip compares the checksum only when it is asked for what is behind the end
    if (member.read(&more, 1) != 0) member.refuse("it is longer than it claims");
  });
  return arrays;
}

std::vector<NpzEntry> list_npz(const std::string& path) {
  std::vector<NpzEntry> entries;
  each_array(path, [&](const std::string& name, const NpyHeader& header, MemberReader& member) {
    entries.push_back({name, header, member.stored()});
  });
  return entries;
}

bool is_npz(const std::string& path) {
  char start[4] = {};
  std::ifstream(path, std::ios::binary).read(start, 4);
  return std::memcmp(start, "PK\3\4", 4) == 0 || std::memcmp(start, "PK\5\6", 4) == 0;  // the second: no members
}

void write_npz(const std::string& path, const std::vector<NpzMember>& members) {
  OutputFile file(path);
  ZipWriter zip(file);
  for (const NpzMember& m : members) {
    const std::string header = npy_header("<f4", m.shape);
    const NpyHeader checked = parse_npy(fmt::format("{}, member {}", path, m.name), header.data(), header.size());
    zip.add(m.name + ".npy", {header, {reinterpret_cast<const char*>(m.data), checked.bytes()}});
  }
  zip.finish();
  file.commit();
}

}  // namespace gsae
