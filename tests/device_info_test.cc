#include "kernels/device_info.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

TEST(DeviceInfo, ListsTheGpusOrNone) {
  const std::vector<DeviceInfo> devices = cuda_devices();
  EXPECT_EQ(devices.empty(), !available(Device::kCuda));
  for (const DeviceInfo& d : devices) {
    EXPECT_FALSE(d.name.empty());
    EXPECT_GE(d.major, 1);
    EXPECT_GT(d.multiprocessors, 0);
    EXPECT_GT(d.cache, 0u);
    EXPECT_GT(d.memory_free, 0u);
    EXPECT_LE(d.memory_free, d.memory_total);
  }
}

TEST(DeviceInfo, NamesTheVersions) {
  const std::string versions = cuda_versions();
  EXPECT_EQ(versions.empty(), cuda_backend() == CudaBackend::kNone) << versions;
  if (!versions.empty()) {
    EXPECT_NE(versions.find(", runtime "), std::string::npos) << versions;
    EXPECT_NE(versions.find(", cuBLASLt "), std::string::npos) << versions;
  }
}

struct DeviceInfoOn : OnDevice {};
ON_DEVICES(DeviceInfoOn);

TEST_P(DeviceInfoOn, SeesMemoryTaken) {
  if (!on_cuda()) GTEST_SKIP() << "a GPU's";
  const size_t before = cuda_devices()[0].memory_free;
  const Buffer taken(Device::kCuda, size_t{64} << 20);
  const size_t after = cuda_devices()[0].memory_free;
  // others may use the GPU too
  if (emulated(ctx)) {
    EXPECT_EQ(before - after, taken.size());
  }
}

}  // namespace
}  // namespace gsae::test
