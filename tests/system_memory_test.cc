#include "io/system_memory.h"

#include <unistd.h>

#include "tests/files.h"

namespace gsae {
namespace {

using test::TempFolder;

// A /proc and a /sys of our own: the figures are known, and so is what they must come to.
class SystemMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    write("/proc/meminfo",
          "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    5000 kB\nCached: 9 kB\n");
  }
  void write(const std::string& path, std::string_view text) {
    std::filesystem::create_directories(std::filesystem::path(root_.path() + path).parent_path());
    test::write_bytes(root_.path() + path, text);
  }
  void expect(size_t total, size_t available) {
    const SystemMemory memory = system_memory(root_.path());
    EXPECT_EQ(memory.total, total);
    EXPECT_EQ(memory.available, available);
  }
  TempFolder root_;
};

TEST_F(SystemMemoryTest, IsTheMachinesWithoutControlGroups) { expect(8000 << 10, 5000 << 10); }

TEST_F(SystemMemoryTest, IsTheMachinesWhereTheGroupsSetNoLimit) {
  write("/proc/self/cgroup", "0::/a/b\n");
  write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  write("/sys/fs/cgroup/a/b/memory.current", "12345\n");
  expect(8000 << 10, 5000 << 10);
}

TEST_F(SystemMemoryTest, IsTheGroupsWhereThatIsLessAndCountsItsCacheAsFree) {
  write("/proc/self/cgroup", "1:name=systemd:/elsewhere\n0::/a/b\n");
  write("/sys/fs/cgroup/a/b/memory.max", "2000000\n");
  write("/sys/fs/cgroup/a/b/memory.current", "1500000\n");
  write("/sys/fs/cgroup/a/b/memory.stat", "anon 900000\nactive_file 100000\ninactive_file 400000\n");
  expect(2000000, 900000);  // 2000000 - (1500000 - 400000)
}

TEST_F(SystemMemoryTest, LimitsOfTheGroupsAboveAndOfTheRootCount) {
  write("/proc/self/cgroup", "0::/a/b\n");
  write("/sys/fs/cgroup/a/b/memory.max", "3000000\n");
  write("/sys/fs/cgroup/a/b/memory.current", "1000\n");
  write("/sys/fs/cgroup/a/memory.max", "2000000\n");
  write("/sys/fs/cgroup/a/memory.current", "1900000\n");
  expect(2000000, 100000);
  write("/sys/fs/cgroup/memory.max", "1000000\n");  // as inside a container
  write("/sys/fs/cgroup/memory.current", "1000001\n");
  expect(1000000, 0);
}

TEST_F(SystemMemoryTest, AMissingMeminfoIsAnError) {
  std::filesystem::remove(root_.path() + "/proc/meminfo");
  EXPECT_ERROR(system_memory(root_.path()), "/proc/meminfo");
}

TEST(SystemMemory, OfThisMachineIsWithinWhatSysconfSays) {
  const SystemMemory memory = system_memory();
  const size_t physical = size_t(sysconf(_SC_PHYS_PAGES)) * size_t(sysconf(_SC_PAGE_SIZE));
  EXPECT_GT(memory.available, 0u);
  EXPECT_LE(memory.available, memory.total);
  EXPECT_LE(memory.total, physical);
}

}  // namespace
}  // namespace gsae
