#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "kernels/tensor.h"

namespace gsae {

// One tensor of a safetensors file, as the header describes it. Offsets have been checked: data
// points at exactly the bytes that shape and dtype need, inside the mapping.
struct StoredTensor {
  std::string name;
  std::string dtype;  // as written in the file: "F32", "F16", "BF16", "F64", "I32", "I64", "U16", ...
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;

  int64_t size() const;  // elements
};

// A safetensors file, mapped read-only. The constructor checks the whole header: its length against
// the file, that it is JSON, every dtype, shape and offset (no overflow, no overlap, nothing beyond
// the file) and throws an Error that names the file and what is wrong.
//
// Format: https://huggingface.co/docs/safetensors
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path);

  const std::string& path() const;
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const StoredTensor* find(const std::string& name) const;  // nullptr: not there
  const StoredTensor& get(const std::string& name) const;   // an Error that lists what is there

 private:
  MappedFile file_;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// The tensor where it lies, without a copy: dtype F32, BF16, I32 or I64 only, and only if the bytes
// are aligned to the element (a file may lay them anywhere); an empty Tensor otherwise.
Tensor mapped_view(const StoredTensor& t);

// Every element as f32, from F64, F32, F16, BF16. An Error names the tensor for other dtypes.
std::vector<float> to_f32(const StoredTensor& t);
void to_f32(float* out, const StoredTensor& t);  // out: t.size() elements

// Writes a safetensors file: declare every tensor, then append their bytes in that order, in pieces
// of any size. The file appears under `path` only at close(), by rename, complete and synced; an
// error (a full disk) or a destructor without close() leaves nothing behind. Dtypes as in the file.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name, dtype;
    std::vector<int64_t> shape;
  };
  SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  // Appends to one tensor, independent of the others' progress: rows of several tensors arrive
  // together.
  void append(const std::string& name, const void* data, size_t bytes);
  void close();  // throws unless every tensor has all its bytes

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gsae
