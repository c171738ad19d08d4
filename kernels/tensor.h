#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "kernels/bf16.h"
#include "kernels/check.h"

namespace gsae {

enum class Device : uint8_t { kCpu, kCuda };
enum class DType : uint8_t { kF32, kBF16, kI32, kI64, kF64 };

constexpr size_t size_of(DType t) { return t == DType::kBF16 ? 2 : t == DType::kF32 || t == DType::kI32 ? 4 : 8; }
constexpr const char* name(DType t) {
  switch (t) {
    case DType::kF32: return "f32";
    case DType::kBF16: return "bf16";
    case DType::kI32: return "i32";
    case DType::kI64: return "i64";
    case DType::kF64: return "f64";
  }
  return "?";
}
constexpr const char* name(Device d) { return d == Device::kCpu ? "cpu" : "cuda"; }

template <class T> constexpr DType dtype_of();  // no definition: other types do not compile
template <> constexpr DType dtype_of<float>() { return DType::kF32; }
template <> constexpr DType dtype_of<BF16>() { return DType::kBF16; }
template <> constexpr DType dtype_of<int32_t>() { return DType::kI32; }
template <> constexpr DType dtype_of<int64_t>() { return DType::kI64; }
template <> constexpr DType dtype_of<double>() { return DType::kF64; }

// A view: where the numbers are, what they are, and how many. Owns nothing, copies freely, is
// always row-major and contiguous. Constness is shallow, as with a pointer.
struct Tensor {
  static constexpr int kMaxRank = 4;

  std::byte* ptr = nullptr;
  DType dtype = DType::kF32;
  Device device = Device::kCpu;
  int rank = 0;  // 0: no tensor (an optional operand that is absent)
  std::array<int64_t, kMaxRank> dim{};

  explicit operator bool() const { return rank > 0; }
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dim[i];
    return n;
  }
  size_t bytes() const { return static_cast<size_t>(size()) * size_of(dtype); }

  bool is(std::initializer_list<int64_t> shape) const {
    return rank == static_cast<int>(shape.size()) && std::equal(shape.begin(), shape.end(), dim.begin());
  }

  template <class T> T* data() const {
    CHECK(dtype == dtype_of<T>(), std::string("tensor is ") + name(dtype));
    return reinterpret_cast<T*>(ptr);
  }

  Tensor rows(int64_t begin, int64_t end) const;               // [begin, end) of dimension 0
  Tensor reshape(std::initializer_list<int64_t> shape) const;  // the same elements, in order
};

// A view of memory that something else owns.
template <class T> Tensor view(T* data, std::initializer_list<int64_t> shape) {
  Tensor t{.ptr = reinterpret_cast<std::byte*>(data),
           .dtype = dtype_of<T>(),
           .device = Device::kCpu,
           .rank = static_cast<int>(shape.size())};
  std::copy(shape.begin(), shape.end(), t.dim.begin());
  return t;
}

std::string describe(const Tensor& t);  // "bf16[4096, 2304]@cuda"

}  // namespace gsae
