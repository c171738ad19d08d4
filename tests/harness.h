#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/context.h"
#include "kernels/memory.h"
#include "tests/sanitized.h"

namespace gsae::test {

// Uniform in [lo, hi), seeded by the test: a failure reproduces by name alone. Rounded to dtype,
// so that the reference sees exactly the numbers that the kernel sees.
inline std::vector<float> uniform(int64_t n, uint32_t seed, DType t, float lo, float hi) {
  std::mt19937 rng(seed);
  std::vector<float> v(n);
  for (float& x : v) {
    x = lo + (hi - lo) * (float(rng() >> 8) * 0x1p-24f);  // not std::uniform_*: unportable
    if (t == DType::kBF16) x = to_float(to_bf16(x));
  }
  return v;
}

// Small integers: products and sums are exact in f32, in any order, so results compare with ==.
inline std::vector<float> integers(int64_t n, uint32_t seed, int lo, int hi) {
  std::mt19937 rng(seed);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(lo + static_cast<int>(rng() % (hi - lo + 1)));
  return v;
}

// A tensor on a device, full of NaN, between two canaries: an element that the op forgets to write
// fails as NaN, and one written out of bounds breaks a canary. The canary is not a NaN: a NaN read
// out of bounds would be written out of bounds unchanged, and pass. Under AddressSanitizer there
// are no canaries: the allocation ends where the tensor ends, and reads are caught as well.
class Guarded {
 public:
  Guarded(Context& ctx, DType t, std::initializer_list<int64_t> shape) : ctx_(ctx) {
    Arena plan;
    tensor_ = plan.take("", t, shape);
    buffer_ = Buffer(ctx.device(), tensor_.bytes() + 2 * kPad);
    tensor_.ptr = buffer_.data() + kPad;
    tensor_.device = ctx.device();
    std::vector<std::byte> fill(buffer_.size(), kCanary);
    std::fill_n(fill.begin() + kPad, tensor_.bytes(), std::byte{0xff});  // NaN in f32 and bf16
    write(buffer_.data(), fill.data(), fill.size());
  }
  Guarded(Context& ctx, DType t, std::initializer_list<int64_t> shape, const std::vector<float>& v)
      : Guarded(ctx, t, shape) {
    std::vector<BF16> b(v.size());
    std::transform(v.begin(), v.end(), b.begin(), to_bf16);
    write(tensor_.ptr, t == DType::kF32 ? static_cast<const void*>(v.data()) : b.data(), tensor_.bytes());
  }

  operator Tensor() const { return tensor_; }

  std::vector<float> read() {
    std::vector<std::byte> all(buffer_.size());
    copy(ctx_, view(all.data(), all.size(), Device::kCpu), view(buffer_.data(), all.size(), ctx_.device()));
    ctx_.synchronize();
    for (size_t i = 0; i < all.size(); ++i) {
      if (i >= kPad && i < kPad + tensor_.bytes()) continue;
      EXPECT_EQ(all[i], kCanary) << "written out of bounds at byte " << int64_t(i) - int64_t(kPad);
    }
    std::vector<float> v(tensor_.size());
    for (size_t i = 0; i < v.size(); ++i) {
      const std::byte* p = all.data() + kPad + i * size_of(tensor_.dtype);
      BF16 b;
      if (tensor_.dtype == DType::kF32) std::memcpy(&v[i], p, 4);
      else std::memcpy(&b, p, 2), v[i] = to_float(b);
    }
    return v;
  }

 private:
  static constexpr size_t kPad = kSanitized ? 0 : 4096;
  static constexpr std::byte kCanary{0xa5};
  static Tensor view(const void* p, size_t bytes, Device d) {
    auto* b = static_cast<std::byte*>(const_cast<void*>(p));
    return {.ptr = b, .dtype = DType::kBF16, .device = d, .rank = 1, .dim = {int64_t(bytes / 2)}};
  }
  void write(std::byte* dst, const void* src, size_t bytes) {
    copy(ctx_, view(dst, bytes, ctx_.device()), view(src, bytes, Device::kCpu));
    ctx_.synchronize();
  }

  Context& ctx_;
  Buffer buffer_;
  Tensor tensor_;
};

// |got - want| <= rel * |want| + abs * terms, for every element; NaN never passes. Reports the
// worst. terms: where the result is a sum that may cancel, the sum of the absolute values; empty:
// ones.
template <class Want>
void expect_close(const std::vector<float>& got, const std::vector<Want>& want, double rel, double abs = 0,
                  const std::vector<double>& terms = {}) {
  ASSERT_EQ(got.size(), want.size());
  size_t worst = 0, bad = 0;
  double worst_ratio = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double bound =
        rel * std::fabs(want[i]) + abs * (terms.empty() ? 1 : terms[i]) + std::numeric_limits<float>::min();
    double ratio = std::fabs(double(got[i]) - want[i]) / bound;
    if (!(ratio <= 1)) ++bad;
    if (std::isnan(ratio)) ratio = HUGE_VAL;
    if (ratio > worst_ratio) worst_ratio = ratio, worst = i;
  }
  EXPECT_EQ(bad, 0u) << bad << " of " << got.size() << " outside; worst at " << worst << ": got " << got[worst]
                     << ", want " << want[worst] << ", " << worst_ratio << " times the bound";
  if (std::getenv("GSAE_SHOW_ERRORS") && !got.empty()) std::printf("worst error: %.3f times the bound\n", worst_ratio);
}

// Every test of an op runs on every backend of the build:
//
//   struct RmsNorm : OnDevice {};
//   TEST_P(RmsNorm, MatchesDoubles) { ... rms_norm(ctx, ...) ... }
//   ON_DEVICES(RmsNorm);
//
// Where the build has a CUDA backend and the machine no GPU, it is skipped for all to see; with GSAE_REQUIRE_CUDA set
// that is a failure.
inline void require(Device d) {  // for SetUp()
  if (available(d)) return;
  if (std::getenv("GSAE_REQUIRE_CUDA")) FAIL() << "GSAE_REQUIRE_CUDA is set: " << why_unavailable(d);
  GTEST_SKIP() << why_unavailable(d);
}
struct OnDevice : testing::TestWithParam<Device> {
  void SetUp() override { require(GetParam()); }
  bool on_cuda() const { return GetParam() == Device::kCuda; }

  Context ctx{available(GetParam()) ? GetParam() : Device::kCpu};
};

inline std::vector<Device> devices() {
  if (cuda_backend() == CudaBackend::kNone) return {Device::kCpu};
  return {Device::kCpu, Device::kCuda};
}
// The emulation runs a kernel's threads one after the other, some thousand times slower than a GPU: large shapes are
// for the others.
inline bool emulated(const Context& ctx) {
  return ctx.device() == Device::kCuda && cuda_backend() == CudaBackend::kEmulated;
}
inline std::string device_name(const testing::TestParamInfo<Device>& p) { return name(p.param); }
#define ON_DEVICES(Suite) INSTANTIATE_TEST_SUITE_P(Devices, Suite, testing::ValuesIn(devices()), device_name)
// What is about GPUs alone: in a build without CUDA there is nothing of it to run.
#define ON_GPUS(Suite)                                  \
  GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Suite); \
  INSTANTIATE_TEST_SUITE_P(Devices, Suite, testing::ValuesIn(gpus()), device_name)
inline std::vector<Device> gpus() {
  if (cuda_backend() == CudaBackend::kNone) return {};
  return {Device::kCuda};
}

// A tensor's elements, wherever it is.
template <class T> std::vector<T> download(Context& ctx, Tensor t) {
  std::vector<T> host(static_cast<size_t>(t.size()));
  if (host.empty()) return host;
  copy(ctx, view(host.data(), {t.size()}), t.reshape({t.size()}));
  ctx.synchronize();
  return host;
}
template <class T> void upload(Context& ctx, Tensor t, const std::vector<T>& host) {
  copy(ctx, t, view(const_cast<T*>(host.data()), {t.size()}));
  ctx.synchronize();
}

}  // namespace gsae::test
