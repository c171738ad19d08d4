#include "kernels/tensor.h"

#include "kernels/checkf.h"

namespace gsae {

void fail(const char* file, int line, const char* expr, const std::string& what) {
  throw Error(fmt::format("{}:{}: {} [{}]", file, line, what, expr));
}

std::string describe(const Tensor& t) {
  return fmt::format("{}[{}]@{}", name(t.dtype), fmt::join(t.dim.begin(), t.dim.begin() + t.rank, ", "),
                     name(t.device));
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  CHECKF(0 <= begin && begin <= end && end <= dim[0], "rows [{}, {}) of {}", begin, end, *this);
  Tensor t = *this;
  t.dim[0] = end - begin;
  int64_t row = static_cast<int64_t>(size_of(dtype));
  for (int i = 1; i < rank; ++i) row *= dim[i];
  t.ptr += begin * row;
  return t;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> shape) const {
  Tensor t = *this;
  CHECKF(shape.size() <= kMaxRank, "reshape of {}: rank {}", *this, shape.size());
  t.rank = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), t.dim.begin());
  CHECKF(t.size() == size(), "reshape: {} and {} differ in size", *this, t);
  return t;
}

}  // namespace gsae
