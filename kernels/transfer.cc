#include "kernels/transfer.h"

#include <cstring>

#include "kernels/checkf.h"
#include "kernels/dispatch.h"

namespace gsae {

namespace {

struct HostUpload final : Upload::Lane {
  void send(Context&, Tensor dst, Tensor host) override { std::memcpy(dst.ptr, host.ptr, host.bytes()); }
};

struct HostReadback final : Readback::Lane {
  explicit HostReadback(size_t bytes) : values(bytes) {}
  void request(Context&, Tensor src) override { std::memcpy(values.data(), src.ptr, src.bytes()); }
  bool ready() const override { return true; }
  const std::byte* wait() override { return values.data(); }

  std::vector<std::byte> values;
};

}  // namespace

std::shared_ptr<Upload::Lane> cpu::make_upload(Context&, size_t) { return std::make_shared<HostUpload>(); }
std::shared_ptr<Readback::Lane> cpu::make_readback(Context&, size_t bytes) {
  return std::make_shared<HostReadback>(bytes);
}

Upload::Upload(Context& ctx, size_t bytes) : lane_(GSAE_DISPATCH(ctx.device(), make_upload(ctx, bytes))) {}

void Upload::send(Context& ctx, Tensor dst, Tensor host) {
  CHECKF(dst.dtype == host.dtype && dst.size() == host.size() && host.device == Device::kCpu, "upload {} <- {}", dst,
         host);
  if (host.bytes() > 0) lane_->send(ctx, dst, host);
}

Readback::Readback(Context& ctx, size_t bytes)
    : lane_(GSAE_DISPATCH(ctx.device(), make_readback(ctx, bytes))), capacity_(bytes) {}

void Readback::request(Context& ctx, Tensor src) {
  CHECKF(src.bytes() <= capacity_, "readback of {}: laid out for {} bytes", src, capacity_);
  size_ = src.bytes();
  lane_->request(ctx, src);
}

bool Readback::ready() const { return size_ > 0 && lane_->ready(); }

void Readback::fetch(void* host) {
  CHECKF(size_ > 0, "readback: nothing was requested");
  std::memcpy(host, lane_->wait(), size_);
}

}  // namespace gsae
