#include "io/file_stamp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>

#include "tests/files.h"

namespace gsae::test {
namespace {

std::string letters(size_t n) {
  std::string s;
  for (size_t i = 0; i < n; ++i) s += static_cast<char>('a' + i % 26);
  return s;
}

// By the xxhash module of Python: xxh3_64_intdigest(all or both ends + size.to_bytes(8, "little")).
TEST(FileStamp, IsSizeAndHash) {
  const TempFolder folder;
  const std::string path = folder / "a";
  const auto stamp = [&](const std::string& bytes) {
    write_bytes(path, bytes);
    return stamp_file(path);
  };
  EXPECT_EQ(stamp(""), (FileStamp{path, 0, 0xc77b3abb6f87acd9u}));
  EXPECT_EQ(stamp("gemma"), (FileStamp{path, 5, 0x94a8746c458932c4u}));
  EXPECT_EQ(stamp(letters(100'000)), (FileStamp{path, 100'000, 0x58085e608437062fu}));
  EXPECT_EQ(stamp(letters(300'000)), (FileStamp{path, 300'000, 0xfea43f5b841533b1u}));
}

TEST(FileStamp, SeesAChangeAtTheEndsAndOfTheSize) {
  const TempFolder folder;
  const std::string path = folder / "a";
  for (const size_t n : {size_t{1000}, size_t{100'000}, size_t{131'072}, size_t{300'000}}) {
    std::string bytes = letters(n);
    std::set<uint64_t> hashes;
    const auto add = [&] {
      write_bytes(path, bytes);
      hashes.insert(stamp_file(path).hash);
    };
    add();
    size_t changes = 1;
    for (const size_t at : {size_t{0}, std::min<size_t>(n, 65'536) - 1, n - std::min<size_t>(n, 65'536), n - 1}) {
      bytes[at] = static_cast<char>('A' + changes);
      add();
      EXPECT_EQ(hashes.size(), ++changes) << n << " " << at;
    }
    bytes.pop_back();
    add();
    EXPECT_EQ(hashes.size(), ++changes) << n;
  }
}

TEST(FileStamp, OfTheContentsNotOfTheTime) {
  const TempFolder folder;
  write_bytes(folder / "a", "bytes");
  const FileStamp before = stamp_file(folder / "a");
  std::filesystem::last_write_time(folder / "a", std::filesystem::file_time_type{});
  EXPECT_EQ(stamp_file(folder / "a"), before);
}

TEST(FileStamp, StandardInputAndWhatCannotBeRead) {
  EXPECT_EQ(stamp_file("-"), (FileStamp{"-", -1, 0}));
  EXPECT_ERROR(stamp_file("/absent/x.jsonl"), "/absent/x.jsonl");
  const TempFolder folder;
  EXPECT_ERROR(stamp_file(folder.path()), "folder");
}

}  // namespace
}  // namespace gsae::test
