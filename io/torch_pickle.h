#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/zip_reader.h"

namespace gsae {

// A tensor as the pickle of a PyTorch file describes it: a view into one of the file's storages. Checked: sizes,
// strides and offset are natural numbers, as many strides as sizes, and no element lies outside the storage's
// `elements`.
struct PickledTensor {
  std::string name;
  std::string storage;  // its key: the member data/KEY
  StoredFloat type = StoredFloat::kF32;
  int64_t elements = 0;  // of the storage
  int64_t offset = 0;    // in elements
  std::vector<int64_t> shape, strides;

  int64_t size() const;  // elements of the tensor, which is known not to overflow
};

// Reads the data.pkl of a state dict: a dict (or OrderedDict) of floating-point tensors by name. Nothing is executed:
// of pickle's language it knows the few words that such a file consists of, and four names
// (torch._utils._rebuild_tensor_v2, collections.OrderedDict, and torch's storages of floats); any other word or name is
// an Error that says which. Time and memory are linear in the bytes. what: the path, with which Errors begin.
//
// Format: Python's Lib/pickletools.py; torch/serialization.py and torch/_utils.py.
std::vector<PickledTensor> parse_state_dict(const std::string& what, std::string_view pickle);

// The data.pkl of a dict of contiguous f32 tensors, one storage each: storage i is that of tensor i. Protocol 2, as
// torch.save writes it.
struct PickledShape {
  std::string name;
  std::vector<int64_t> shape;
};
std::string pickle_state_dict(const std::vector<PickledShape>& tensors);

}  // namespace gsae
