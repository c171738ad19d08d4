#include "io/npz.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "io/output_file.h"
#include "io/zip_reader.h"
#include "io/zip_writer.h"
#include "kernels/check.h"

namespace gsae {
namespace {

NpyHeader read_header(ZipMember& member) {
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
  return parse_npy(member.what(), bytes.data(), bytes.size(), true);
}

// Whether elements of this dtype are read, and how.
bool is_float(StoredFloat& type, const std::string& descr) {
  if (descr == "<f8") type = StoredFloat::kF64;
  else if (descr == "<f4") type = StoredFloat::kF32;
  else if (descr == "<f2") type = StoredFloat::kF16;
  else if (descr == "|V2" || descr == "<V2") type = StoredFloat::kBF16;
  else return false;
  return true;
}

// use(name, header, member) for every .npy member, read up to the end of its header.
template <class F> void each_array(const std::string& path, F&& use) {
  ZipArchive archive(path, "npz");
  for (int64_t i = 0; i < archive.members(); ++i) {
    std::string name = archive.name(i);
    if (!name.ends_with(".npy")) continue;
    name.resize(name.size() - 4);
    ZipMember member(archive, i);
    const NpyHeader header = read_header(member);
    const bool pickled = header.descr == "|O";  // Python objects, of any length; nothing for us
    if (!pickled && (member.size() < header.data_offset || member.size() - header.data_offset != header.bytes()))
      member.refuse(fmt::format("it has {} bytes, but {}({}) needs {}", member.size(), header.descr,
                                fmt::join(header.shape, ", "), header.data_offset + header.bytes()));
    use(name, header, member);
  }
}

}  // namespace

std::map<std::string, NpzArray> read_npz(const std::string& path, size_t max_bytes,
                                         const std::vector<std::string>& names) {
  std::map<std::string, NpzArray> arrays;
  uint64_t taken = 0;
  each_array(path, [&](const std::string& name, const NpyHeader& header, ZipMember& member) {
    StoredFloat type;
    if (!is_float(type, header.descr)) return;
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) return;
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
    if (header.fortran_order)
      read_columns(values, static_cast<size_t>(header.shape[0]), static_cast<size_t>(header.shape[1]), member, type);
    else read_floats(values, n, member, type);
    member.expect_end();
  });
  return arrays;
}

std::vector<NpzEntry> list_npz(const std::string& path) {
  std::vector<NpzEntry> entries;
  each_array(path, [&](const std::string& name, const NpyHeader& header, ZipMember& member) {
    entries.push_back({name, header, member.stored()});
  });
  return entries;
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
