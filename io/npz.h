#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace gsae {

// A numpy array in memory, as read from .npy bytes. Little-endian; Fortran order is an Error.
struct NpyHeader {
  std::string descr;  // "<f4", "<f8", "<f2", "<i4", "<i8", "<u2", "<u4", "|V2" (bf16 by ml_dtypes), ...
  std::vector<int64_t> shape;
  size_t data_offset = 0;
  int64_t size() const;
  size_t element_bytes() const;
};
// Parses the header at the start of `bytes` (versions 1.0, 2.0, 3.0) without trusting it.
NpyHeader parse_npy(const std::string& what, const void* bytes, size_t size);

struct NpzArray {
  std::vector<int64_t> shape;
  std::vector<float> values;  // widened or rounded to f32
};

// Every floating-point array of an npz (stored or deflated, zip64 included), as f32 by member name
// without ".npy". Members other than .npy are ignored. An Error names the file and member. The
// uncompressed size is checked against the header's shape before memory is taken, and `max_bytes`
// bounds the sum.
std::map<std::string, NpzArray> read_npz(const std::string& path, size_t max_bytes = size_t{1} << 40);
bool is_npz(const std::string& path);  // starts with a zip signature

// One f32 array to write; the data is not copied.
struct NpzMember {
  std::string name;  // without ".npy"
  std::vector<int64_t> shape;
  const float* data = nullptr;
};
// Writes stored (not compressed) members, as numpy.savez does, zip64 where needed; the file appears
// whole or not at all (see OutputFile).
void write_npz(const std::string& path, const std::vector<NpzMember>& members);

// Writes one f32 or i32 .npy file (tests and tools).
void write_npy(const std::string& path, const std::string& descr, const std::vector<int64_t>& shape, const void* data);

}  // namespace gsae
