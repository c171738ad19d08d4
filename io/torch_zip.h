#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "io/torch_pickle.h"
#include "io/zip_reader.h"

namespace gsae {

// A state dict of floating-point tensors as torch.save writes it since PyTorch 1.6: a zip archive with data.pkl, which
// says what the tensors are (read by parse_state_dict, which executes nothing), and their storages data/0, data/1, ...
// The constructor checks what it says against the archive: every storage is there, with the bytes that it claims, and
// each tensor lies in its own in C order or, with two dimensions, transposed; other views are an Error.
class TorchFile {
 public:
  explicit TorchFile(const std::string& path);

  const std::string& path() const { return archive_.path(); }
  const std::map<std::string, PickledTensor>& tensors() const { return tensors_; }

  // Every element as f32, in C order; out: as many as the tensor has.
  void read(float* out, const PickledTensor& tensor);

 private:
  ZipArchive archive_;
  std::map<std::string, int64_t> storages_;  // members by key
  std::map<std::string, PickledTensor> tensors_;
};

struct TorchMember {
  std::string name;
  std::vector<int64_t> shape;
  const float* data = nullptr;  // not copied
};
// Writes a dict of contiguous f32 tensors as torch.save does: stored members, storages aligned to 64 bytes. It is read
// by torch.load, with weights_only too. Equal content gives equal bytes; the file appears whole or not at all.
void write_torch(const std::string& path, const std::vector<TorchMember>& tensors);

}  // namespace gsae
