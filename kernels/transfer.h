#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Host values on their way to the device, without a wait on either side. On cuda: two slots of pinned memory, and a
// copy stream beside the stream of the ops; send() waits only while both slots are still on their way.
class Upload {
 public:
  Upload() = default;
  Upload(Context& ctx, size_t bytes);  // bytes: of the largest tensor that it is to send

  // dst = host, for the ops that ctx is given from here on; earlier ones see what was there before. The host's memory
  // may go at once. Not within a Graph: a replay would send what was recorded.
  void send(Context& ctx, Tensor dst, Tensor host);

  // What moves the bytes, on one device.
  struct Lane {
    virtual ~Lane() = default;
    virtual void send(Context& ctx, Tensor dst, Tensor host) = 0;
  };

 private:
  std::shared_ptr<Lane> lane_;
};

// A device tensor's values as they are at one point of the work of ctx, on their way to the host, while the work goes
// on behind it. One at a time.
class Readback {
 public:
  Readback() = default;
  Readback(Context& ctx, size_t bytes);  // bytes: of the largest tensor that it is to fetch

  void request(Context& ctx, Tensor src);  // takes the place of one that nobody has waited for
  bool ready() const;                      // whether wait() would return at once; false if nothing was requested
  template <class T> std::vector<T> wait() {
    std::vector<T> values(size_ / sizeof(T));
    fetch(values.data());
    return values;
  }

  struct Lane {
    virtual ~Lane() = default;
    virtual void request(Context& ctx, Tensor src) = 0;
    virtual bool ready() const = 0;
    virtual const std::byte* wait() = 0;
  };

 private:
  void fetch(void* host);

  std::shared_ptr<Lane> lane_;
  size_t capacity_ = 0, size_ = 0;
};

namespace cpu {
std::shared_ptr<Upload::Lane> make_upload(Context& ctx, size_t bytes);
std::shared_ptr<Readback::Lane> make_readback(Context& ctx, size_t bytes);
}  // namespace cpu
namespace cuda {
std::shared_ptr<Upload::Lane> make_upload(Context& ctx, size_t bytes);
std::shared_ptr<Readback::Lane> make_readback(Context& ctx, size_t bytes);
}  // namespace cuda

}  // namespace gsae
