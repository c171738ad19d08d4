#include "io/token_files.h"

#include <gtest/gtest.h>

#include <cstring>

#include "io/npz.h"
#include "tests/files.h"

namespace gsae::test {
namespace {

using Ids = std::vector<int32_t>;

class TokenFiles : public testing::Test {
 protected:
  template <class T> std::string npy(const std::string& descr, std::vector<int64_t> shape, std::vector<T> v) {
    write_npy(folder / "a.npy", descr, shape, v.data());
    return folder / "a.npy";
  }
  Ids read(const TokenFile& file, int64_t vocab_size = 0) {
    Ids ids(static_cast<size_t>(file.rows() * file.width()));
    for (int64_t r = 0; r < file.rows(); ++r) file.read(ids.data() + r * file.width(), r, 0, file.width(), vocab_size);
    return ids;
  }
  Ids read(const std::string& path) { return read(TokenFile(path, "uint16")); }
  TempFolder folder;
};

TEST_F(TokenFiles, NpyOfEachType) {
  const Ids want = {0, 1, 65535, 7, 8, 9};
  EXPECT_EQ(read(npy<uint16_t>("<u2", {6}, {0, 1, 65535, 7, 8, 9})), want);
  EXPECT_EQ(read(npy<uint32_t>("<u4", {6}, {0, 1, 65535, 7, 8, 9})), want);
  EXPECT_EQ(read(npy<int32_t>("<i4", {2, 3}, {0, 1, 65535, 7, 8, 9})), want);
  EXPECT_EQ(read(npy<int64_t>("<i8", {3, 2}, {0, 1, 65535, 7, 8, 9})), want);
  const TokenFile rows(npy<int64_t>("<i8", {3, 2}, {0, 1, 65535, 7, 8, 9}), "uint16");
  EXPECT_FALSE(rows.is_stream());
  EXPECT_EQ(rows.rows(), 3);
  EXPECT_EQ(rows.width(), 2);
}

TEST_F(TokenFiles, Bin) {
  write_bytes(folder / "a.bin", std::string("\x01\x00\xff\xff\x02\x01\x00\x00", 8));
  EXPECT_EQ(read(TokenFile(folder / "a.bin", "uint16")), (Ids{1, 65535, 258, 0}));
  write_bytes(folder / "b.bin", std::string("\x01\x00\x01\x00\x02\x01\x00\x00", 8));
  EXPECT_EQ(read(TokenFile(folder / "b.bin", "uint32")), (Ids{65537, 258}));
  write_bytes(folder / "c.bin", "123456789");
  EXPECT_ERROR(TokenFile(folder / "c.bin", "uint16"), "truncated, or --token-dtype");
  EXPECT_ERROR(TokenFile(folder / "a.bin", "int7"), "int7");
}

TEST_F(TokenFiles, Safetensors) {
  const Ids ids = {5, 6, 7, 8};
  {
    SafetensorsWriter writer(folder / "a.safetensors", {{"other", "F32", {1}}, {"tokens", "I32", {2, 2}}});
    writer.append("other", "abcd", 4);
    writer.append("tokens", ids.data(), 16);
    writer.close();
  }
  const TokenFile file(folder / "a.safetensors", "uint16");
  EXPECT_EQ(file.rows(), 2);
  EXPECT_EQ(read(file), ids);
  {
    SafetensorsWriter writer(folder / "b.safetensors", {{"other", "F32", {1}}});
    writer.append("other", "abcd", 4);
    writer.close();
  }
  EXPECT_ERROR(TokenFile(folder / "b.safetensors", ""), "tokens");
  {
    SafetensorsWriter writer(folder / "c.safetensors", {{"tokens", "F32", {1}}});
    writer.append("tokens", "abcd", 4);
    writer.close();
  }
  EXPECT_ERROR(TokenFile(folder / "c.safetensors", ""), "F32");
}

TEST_F(TokenFiles, RefusesIdsOutsideTheVocabulary) {
  const TokenFile file(npy<int64_t>("<i8", {2, 3}, {0, 1, 2, 3, 4, 100}), "uint16");
  EXPECT_EQ(read(file, 101).back(), 100);
  EXPECT_ERROR(read(file, 100), "row 1, position 2");
  EXPECT_ERROR(read(npy<int64_t>("<i8", {3}, {0, -1, 2})), "position 1");
  EXPECT_ERROR(read(npy<int64_t>("<i8", {3}, {0, 1, int64_t{1} << 32})), "position 2");
  EXPECT_ERROR(read(npy<uint32_t>("<u4", {2}, {0, 0xffffffff})), "position 1");
}

TEST_F(TokenFiles, RefusesWhatIsNotTokens) {
  EXPECT_ERROR(TokenFile(folder / "absent.npy", ""), "absent.npy");
  EXPECT_ERROR(TokenFile(npy<float>("<f4", {2}, {1, 2}), ""), "<f4");
  EXPECT_ERROR(TokenFile(npy<int32_t>("<i4", {1, 1, 2}, {1, 2}), ""), "3 dimensions");
  EXPECT_ERROR(TokenFile(npy<int32_t>("<i4", {0}, {}), ""), "no tokens");
  EXPECT_ERROR(TokenFile(npy<int32_t>("<i4", {0, 8}, {}), ""), "no tokens");
  write_bytes(folder / "empty.npy", "");
  EXPECT_ERROR(TokenFile(folder / "empty.npy", ""), "empty");
  const std::string whole = read_bytes(npy<int32_t>("<i4", {4}, {1, 2, 3, 4}));
  for (const size_t cut : {1, 4, 16}) {
    write_bytes(folder / "cut.npy", std::string_view(whole).substr(0, whole.size() - cut));
    EXPECT_ERROR(TokenFile(folder / "cut.npy", ""), "cut.npy");
  }
  write_bytes(folder / "more.npy", whole + "1234");
  EXPECT_ERROR(TokenFile(folder / "more.npy", ""), "more.npy");
}

TEST_F(TokenFiles, AStreamFallsIntoDocuments) {
  const auto documents = [&](const Ids& stream) {
    const TokenFile file(npy<int32_t>("<i4", {static_cast<int64_t>(stream.size())}, stream), "");
    StreamDocuments reader(file, 2, 1, 0);
    std::vector<Ids> all;
    for (Ids ids; reader.next(ids);) all.push_back(ids);
    return all;
  };
  EXPECT_EQ(documents({2, 11, 12, 2, 21, 2, 2, 31}), (std::vector<Ids>{{2, 11, 12}, {2, 21}, {2}, {2, 31}}));
  EXPECT_EQ(documents({11, 12, 1, 21, 1}), (std::vector<Ids>{{11, 12, 1}, {21, 1}}));
  EXPECT_EQ(documents({2, 11, 1, 2, 21, 1, 31}), (std::vector<Ids>{{2, 11, 1}, {2, 21, 1}, {31}}));
  EXPECT_EQ(documents({11, 12}), (std::vector<Ids>{{11, 12}}));

  // longer than what is read at a time; a boundary right at its end, one before it, and one behind
  const auto most = static_cast<int32_t>(StreamDocuments::kMaxTokens);
  const std::pair<Ids, std::vector<int64_t>> cases[] = {{{most - 1}, {most - 1, most, 6}},
                                                        {{most}, {most, most, 5}},
                                                        {{most + 1}, {most, 1, most, 4}},
                                                        {{5, most}, {5, most - 5, most, 5}}};
  for (const auto& [at, want] : cases) {
    Ids stream(static_cast<size_t>(2 * most + 5), 7);
    for (const int32_t a : at) stream[static_cast<size_t>(a)] = 2;
    Ids together;
    std::vector<int64_t> sizes;
    for (const Ids& ids : documents(stream)) {
      together.insert(together.end(), ids.begin(), ids.end());
      sizes.push_back(static_cast<int64_t>(ids.size()));
    }
    EXPECT_EQ(together, stream);
    EXPECT_EQ(sizes, want);
  }
}

}  // namespace
}  // namespace gsae::test
