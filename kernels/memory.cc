#include "kernels/memory.h"

#include <cstdlib>
#include <cstring>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"
#include "kernels/parallel.h"

namespace gsae {

namespace cpu {
std::byte* allocate(size_t bytes) {
  void* p = nullptr;  // of the exact size, so that AddressSanitizer sees the first byte too many
  CHECKF(posix_memalign(&p, 256, bytes) == 0, "host allocation of {} bytes failed", bytes);
  return static_cast<std::byte*>(p);
}
void release(std::byte* p) noexcept { std::free(p); }
void copy(Context&, Tensor dst, Tensor src) { std::memcpy(dst.ptr, src.ptr, src.bytes()); }
}  // namespace cpu

Buffer::Buffer(Device device, size_t bytes) : bytes_(bytes), device_(device) {
  if (bytes) ptr_ = GSAE_DISPATCH(device, allocate(bytes));
}

void Buffer::reset() noexcept {
  if (ptr_) GSAE_DISPATCH(device_, release(ptr_));
}

void commit(const Buffer& buffer) {
  if (buffer.device() != Device::kCpu) return;
  constexpr int64_t kPart = int64_t{1} << 22;
  parallel_for(static_cast<int64_t>(buffer.size()), kPart, [&](int64_t begin, int64_t end) {
    std::fill(buffer.data() + begin, buffer.data() + end, std::byte{0});
  });
}

Tensor Arena::take(std::string_view name, DType dtype, std::initializer_list<int64_t> shape) {
  CHECKF(shape.size() <= Tensor::kMaxRank, "{}: rank {}", name, shape.size());
  Tensor t{.dtype = dtype, .device = device_, .rank = static_cast<int>(shape.size())};
  std::copy(shape.begin(), shape.end(), t.dim.begin());
  if (base_) {
    CHECKF(used_ + t.bytes() <= capacity_, "{} {} does not fit: {} of {} bytes used", name, t, used_, capacity_);
    t.ptr = base_ + used_;
  }
  used_ += (t.bytes() + kAlign - 1) / kAlign * kAlign;
  entries_.push_back({std::string(name), t});
  return t;
}

void copy(Context& ctx, Tensor dst, Tensor src) {
  CHECKF(dst.dtype == src.dtype && dst.size() == src.size(), "copy {} <- {}", dst, src);
  const bool cuda = dst.device == Device::kCuda || src.device == Device::kCuda;
  GSAE_DISPATCH(cuda ? Device::kCuda : Device::kCpu, copy(ctx, dst, src));
}

}  // namespace gsae
