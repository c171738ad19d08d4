#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gsae {

// What the header of a .npy file says. Little-endian.
//
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
struct NpyHeader {
  std::string descr;  // "<f4", "<f8", "<f2", "<i4", "<i8", "<u2", "<u4", "|V2" (bf16 by ml_dtypes), ...
  std::vector<int64_t> shape;
  size_t data_offset = 0;
  bool fortran_order = false;    // the first dimension runs fastest; false where there is but one
  int64_t size() const;          // elements
  size_t element_bytes() const;  // >= 1
  size_t bytes() const;          // size() * element_bytes(), known not to overflow
};
// Parses the header at the start of `bytes` (versions 1.0, 2.0, 3.0) without trusting it. It sees
// the header alone: that bytes() more follow at data_offset is for the caller to check. Fortran
// order is an Error unless the caller says that it can read it.
NpyHeader parse_npy(const std::string& what, const void* bytes, size_t size, bool allow_fortran = false);

struct NpzArray {
  std::vector<int64_t> shape;
  std::vector<float> values;  // widened or rounded to f32
};

// Every floating-point array of an npz (stored or deflated, zip64 included), as f32 by member name
// without ".npy", in C order (as numpy keeps a transposed array, W.T, it comes in Fortran order; it
// may have two dimensions then). Arrays of other types and members other than .npy are ignored. An Error names the file
// and member. The uncompressed size is checked against the header's shape before memory is taken, and `max_bytes`
// bounds the sum. names: of the arrays that are wanted, if not all.
std::map<std::string, NpzArray> read_npz(const std::string& path, size_t max_bytes = size_t{1} << 40,
                                         const std::vector<std::string>& names = {});

// What an npz holds, without reading the elements: its .npy members in the order of the archive.
struct NpzEntry {
  std::string name;           // without ".npy"
  NpyHeader header;           // Fortran order allowed; fits the member's claimed size
  uint64_t stored_bytes = 0;  // in the archive, compressed or not
};
std::vector<NpzEntry> list_npz(const std::string& path);

// One f32 array to write; the data is not copied.
struct NpzMember {
  std::string name;  // without ".npy"
  std::vector<int64_t> shape;
  const float* data = nullptr;
};
// Writes stored (not compressed) members, as numpy.savez does, zip64 where needed; equal content
// gives equal bytes. The file appears whole or not at all (see OutputFile).
void write_npz(const std::string& path, const std::vector<NpzMember>& members);

// Writes one .npy file of little-endian elements, "<f4" or "<i4" and so on (tests and tools).
void write_npy(const std::string& path, const std::string& descr, const std::vector<int64_t>& shape, const void* data);

// The header that stands before the elements of such a file, padded so that they are 64-aligned.
std::string npy_header(const std::string& descr, const std::vector<int64_t>& shape);

}  // namespace gsae
