#include "io/output_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "io/json.h"
#include "tests/files.h"

namespace gsae::test {
namespace {

TEST(OutputFile, AppearsAtCommitAndWhole) {
  const TempFolder folder;
  const std::string path = folder / "a.txt";
  write_bytes(path, "old");
  {
    OutputFile file(path);
    file.write("hello ", 6);
    file.write("there", 5);
    EXPECT_EQ(read_bytes(path), "old");
    file.commit();
    EXPECT_EQ(read_bytes(path), "hello there");
  }
  EXPECT_EQ(read_bytes(path), "hello there");
  EXPECT_EQ(folder.count(), 1);
}

TEST(OutputFile, WithoutCommitNothingHappened) {
  const TempFolder folder;
  write_bytes(folder / "a", "old");
  {
    OutputFile file(folder / "a");
    file.write("new", 3);
    OutputFile other(folder / "b");
    EXPECT_EQ(folder.count(), 3);
  }
  EXPECT_EQ(read_bytes(folder / "a"), "old");
  EXPECT_EQ(folder.count(), 1);
}

TEST(OutputFile, WritesAnywhere) {
  const TempFolder folder;
  OutputFile file(folder / "a");
  file.resize(6);
  file.write_at(4, "ef", 2);
  file.write("ab", 2);  // unmoved by write_at
  file.write_at(2, "cd", 2);
  file.commit();
  EXPECT_EQ(read_bytes(folder / "a"), "abcdef");
  EXPECT_ERROR(file.commit(), "already in place");
}

// What a process that was killed under our id has left is not in the way, nor followed as a link.
TEST(OutputFile, StaleTemporary) {
  const TempFolder folder;
  write_bytes(folder / "victim", "untouched");
  std::filesystem::create_symlink(folder / "victim", folder / ("a.tmp-" + std::to_string(getpid())));
  write_file(folder / "a", "x");
  EXPECT_EQ(read_bytes(folder / "victim"), "untouched");
  EXPECT_EQ(read_bytes(folder / "a"), "x");
}

TEST(OutputFile, ErrorsSayWhatToDo) {
  const TempFolder folder;
  EXPECT_ERROR(OutputFile(folder / "no/such"), "create the folder first");
  EXPECT_ERROR(OutputFile(folder.path()), "directory");
  EXPECT_ERROR(OutputFile(""), "cannot write");
  write_bytes(folder / "file", "");
  EXPECT_ERROR(OutputFile(folder / "file/x"), "cannot write");
  chmod(folder.path().c_str(), 0500);
  if (geteuid() != 0) EXPECT_ERROR(OutputFile(folder / "x"), "choose a folder that can be written to");
  chmod(folder.path().c_str(), 0700);
}

// A file that cannot grow, as on a full disk: the limit of the process stands in for it.
TEST(OutputFile, NoRoom) {
  const TempFolder folder;
  struct rlimit old {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  struct rlimit small = old;
  small.rlim_cur = 1000;
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string data(5000, 'x');
  const std::string written = error_of([&] { write_file(folder / "a", data); });
  const std::string reserved = error_of([&] { OutputFile(folder / "b").resize(5000); });
  const std::string placed = error_of([&] { OutputFile(folder / "c").write_at(4000, "x", 1); });
  setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  for (const std::string& message : {written, reserved, placed})
    EXPECT_NE(message.find("too large"), std::string::npos) << message;
  EXPECT_EQ(folder.count(), 0);
}

TEST(ReadFile, UpToItsLimit) {
  const TempFolder folder;
  std::string data(200000, 'x');
  data[70000] = '\0';
  write_file(folder / "a", data);
  EXPECT_EQ(read_file(folder / "a", 200000), data);
  EXPECT_ERROR(read_file(folder / "a", 199999), "larger than 199999 bytes");
  write_file(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty", 0), "");
  EXPECT_ERROR(read_file(folder / "absent", 10), "No such file");
  EXPECT_ERROR(read_file(folder.path(), 10), "directory");
  EXPECT_ERROR(read_file("/dev/zero", 1 << 20), "larger than");
}

TEST(Json, Strict) {
  EXPECT_EQ(parse_json("f", R"({"a": [1, {"b": "naïve"}], "c": {"a": 2}})")["a"][1]["b"], "naïve");
  EXPECT_EQ(parse_json("f", "[[[1]]]", 3).size(), 1u);
  EXPECT_ERROR(parse_json("f", "[[[[1]]]]", 3), "f: JSON nested deeper than 3");
  EXPECT_ERROR(parse_json("f", std::string(1 << 20, '[')), "nested");
  EXPECT_ERROR(parse_json("f", R"({"x":1,"a":{"a":1},"b":[{"c":1,"c":2}]})"), "key \"c\" twice");
  EXPECT_ERROR(parse_json("f", "{} {}"), "f: not valid JSON");
  EXPECT_ERROR(parse_json("f", ""), "not valid JSON");
  EXPECT_ERROR(parse_json("f", "\"\xff\""), "UTF-8");
  EXPECT_ERROR(parse_json("f", "{\"a\":1e999}"), "not valid JSON");
}

}  // namespace
}  // namespace gsae::test
