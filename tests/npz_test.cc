#include "io/npz.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <zip.h>
#include <zlib.h>

#include <cstring>
#include <random>

#include "io/zip_reader.h"
#include "io/zip_writer.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kData = test_data("formats/");

std::vector<float> ramp(int n) {  // as make_formats.py
  std::vector<float> v(n);
  for (int i = 0; i < n; ++i) v[i] = float(i * 7 % 23 - 11) / 4;
  return v;
}
using Shape = std::vector<int64_t>;

TEST(Npz, ReadsWhatNumpyStores) {
  const auto a = read_npz(kData + "stored.npz");
  ASSERT_EQ(a.size(), 4u);  // i4 is left out
  for (const char* name : {"f4", "f8", "f2"}) EXPECT_EQ(a.at(name).values, ramp(6)) << name;
  EXPECT_EQ(a.at("f4").shape, (Shape{2, 3}));
  EXPECT_EQ(a.at("f8").shape, (Shape{3, 2}));
  EXPECT_EQ(a.at("scalar").values, std::vector{2.5f});
  EXPECT_TRUE(a.at("scalar").shape.empty());
}

TEST(Npz, ReadsDeflatedAndZip64) {
  const auto a = read_npz(kData + "deflated.npz");
  ASSERT_EQ(a.size(), 5u);
  EXPECT_EQ(a.at("W").values, ramp(2048));
  EXPECT_EQ(a.at("W").shape, (Shape{64, 32}));
  EXPECT_EQ(a.at("h").values, ramp(5));
  EXPECT_EQ(a.at("d").values, ramp(5));
  EXPECT_EQ(a.at("FW").values, a.at("W").values);  // the same array in Fortran order
  EXPECT_EQ(a.at("FW").shape, (Shape{64, 32}));
  EXPECT_EQ(a.at("Fd").values, ramp(6));
  const auto b = read_npz(kData + "zip64.npz");
  ASSERT_EQ(b.size(), 2u);
  EXPECT_EQ(b.at("W_enc").values, ramp(6));
  EXPECT_EQ(b.at("b_enc").values, ramp(3));
  const auto c = read_npz(test_data("eval/params.npz"));
  ASSERT_EQ(c.size(), 5u);
  EXPECT_EQ(c.at("W_enc").shape, (Shape{192, 4096}));
  // Rows of W_dec have unit norm; its columns, or W_enc's, do not.
  const std::vector<float>& W_dec = c.at("W_dec").values;
  for (int f = 0; f < 4096; f += 100) {
    double sum = 0;
    for (int i = 0; i < 192; ++i) sum += double(W_dec[f * 192 + i]) * W_dec[f * 192 + i];
    EXPECT_NEAR(sum, 1, 1e-5) << f;
  }
}

TEST(Npz, Lists) {
  const std::vector<NpzEntry> list = list_npz(kData + "deflated.npz");
  ASSERT_EQ(list.size(), 5u);
  EXPECT_EQ(list[0].name, "W");
  EXPECT_EQ(list[0].header.descr, "<f4");
  EXPECT_EQ(list[0].header.bytes(), 8192u);
  EXPECT_LT(list[0].stored_bytes, 1000u);
  EXPECT_FALSE(list[0].header.fortran_order);
  EXPECT_TRUE(list[3].header.fortran_order);
  EXPECT_EQ(list_npz(kData + "stored.npz")[3].header.descr, "<i4");
  EXPECT_ERROR(list_npz(kData + "fortran.npy"), "cannot be read as npz");
}

TEST(Npz, IsNpz) {
  EXPECT_TRUE(is_zip(kData + "stored.npz"));
  EXPECT_FALSE(is_zip(kData + "fortran.npy"));
  EXPECT_FALSE(is_zip(kData));
  EXPECT_FALSE(is_zip(kData + "absent"));
}

TEST(Npz, WritesWhatItReads) {
  const TempFolder folder;
  const std::string path = folder / "params.npz";
  const std::vector<float> w = ramp(6), b = ramp(3), none;
  const std::vector<NpzMember> members{
      {"W_enc", {2, 3}, w.data()}, {"b_enc", {3}, b.data()}, {"s", {}, b.data()}, {"empty", {0, 3}, none.data()}};
  write_npz(path, members);
  EXPECT_EQ(folder.count(), 1);
  const auto a = read_npz(path);
  ASSERT_EQ(a.size(), 4u);
  EXPECT_EQ(a.at("W_enc").values, w);
  EXPECT_EQ(a.at("W_enc").shape, (Shape{2, 3}));
  EXPECT_EQ(a.at("b_enc").values, b);
  EXPECT_EQ(a.at("s").values, std::vector{b[0]});
  EXPECT_EQ(a.at("empty").shape, (Shape{0, 3}));
  // Equal content gives equal bytes: the clock is not in them.
  const std::string once = read_bytes(path);
  write_npz(path, members);
  EXPECT_EQ(read_bytes(path), once);
  // Every field of the archive, for a library that we did not write.
  int code = 0;
  zip_t* z = zip_open(path.c_str(), ZIP_RDONLY | ZIP_CHECKCONS, &code);
  ASSERT_NE(z, nullptr) << code;
  zip_discard(z);
}

TEST(Npz, WritesZip64) {
  const TempFolder folder;
  const std::string path = folder / "z.npz", header = npy_header("<f4", {6});
  const std::vector<float> w = ramp(6);
  const std::string_view data(reinterpret_cast<const char*>(w.data()), 24);
  // 0: all in zip64 form. 200: offsets of the second and third member alone (each takes about 180 bytes).
  for (const uint64_t zip64_from : {0, 180, 200, 300}) {
    OutputFile file(path);
    ZipWriter zip(file, zip64_from);
    for (const char* name : {"a.npy", "b.npy", "c.npy"}) zip.add(name, {header, data});
    zip.finish();
    file.commit();
    const auto a = read_npz(path);
    ASSERT_EQ(a.size(), 3u);
    for (const char* name : {"a", "b", "c"}) EXPECT_EQ(a.at(name).values, w) << zip64_from;
  }
}

TEST(Npz, WriterErrors) {
  const TempFolder folder;
  const float one = 1;
  EXPECT_ERROR(write_npz(folder / "absent/x.npz", {{"a", {1}, &one}}), "create the folder");
  EXPECT_ERROR(write_npz(folder / "x.npz", {{"a", {int64_t{1} << 62, 4}, &one}}), "overflows");
  EXPECT_EQ(folder.count(), 0);
}

class NpzHostile : public testing::Test {
 protected:
  // Writes an archive of one member and reads it.
  void read(const std::string& header, const std::string& data, size_t max_bytes = 1 << 20) {
    OutputFile file(path_);
    ZipWriter zip(file);
    zip.add("W.npy", {header, data});
    zip.finish();
    file.commit();
    read_npz(path_, max_bytes);
  }
  // Reads the archive, in which one field of the directory entry and of the local header lies.
  void read_with(std::string bytes, size_t local, size_t directory, uint32_t value) {
    const size_t entry = bytes.find("PK\1\2");
    std::memcpy(bytes.data() + local, &value, 4);
    std::memcpy(bytes.data() + entry + directory, &value, 4);
    write_bytes(path_, bytes);
    read_npz(path_);
  }

  TempFolder folder_;
  std::string path_ = folder_ / "x.npz";
};

TEST_F(NpzHostile, ShapeAndBytesDisagree) {
  EXPECT_NO_THROW(read(npy_header("<f4", {2}), std::string(8, '\0')));
  EXPECT_ERROR(read(npy_header("<f4", {3}), std::string(8, '\0')), "needs 140");
  EXPECT_ERROR(read(npy_header("<f4", {1}), std::string(8, '\0')), "needs 132");
  EXPECT_ERROR(read(npy_header("<f8", {2}), std::string(8, '\0')), "member W.npy");
  EXPECT_ERROR(read(npy_header("<f4", {int64_t{1} << 50}), ""), "needs");  // and no memory was taken
  EXPECT_ERROR(read(npy_header("<f4", {64}), std::string(256, '\0'), 255), "255 bytes that are allowed");
  EXPECT_NO_THROW(read(npy_header("<f4", {64}), std::string(256, '\0'), 256));
  EXPECT_ERROR(read(npy_header("<f2", {64}), std::string(128, '\0'), 255), "allowed");  // f32 is what counts
}

TEST_F(NpzHostile, SizesLie) {
  read(npy_header("<f4", {64}), std::string(256, '\0'));
  const std::string bytes = read_bytes(path_);
  EXPECT_ERROR(read_with(bytes, 22, 24, 1 << 30), "claims");    // uncompressed alone
  EXPECT_ERROR(read_with(bytes, 14, 16, 0x12345678), "CRC");    // checksum
  EXPECT_ERROR(read_with(bytes, 8, 10, 12), "neither stored");  // method 12, and time 0
  EXPECT_ERROR(read_with(bytes, 6, 8, 1), "encrypted");         // flags, and method 0
}

// A deflated bomb: 16 MiB of zeros in 16 KiB claim to be an array that they are, or are not.
TEST_F(NpzHostile, Bomb) {
  const std::string header = npy_header("<f4", {1 << 22}), zeros(16 << 20, '\0');
  int code = 0;
  zip_t* z = zip_open(path_.c_str(), ZIP_CREATE, &code);
  const std::string whole = header + zeros;
  zip_file_add(z, "W.npy", zip_source_buffer(z, whole.data(), whole.size(), 0), 0);
  ASSERT_EQ(zip_close(z), 0);
  EXPECT_LT(std::filesystem::file_size(path_), 1u << 17);
  EXPECT_ERROR(read_npz(path_, 1 << 20), "allowed");
  EXPECT_EQ(read_npz(path_).at("W").values.size(), size_t{1} << 22);
  EXPECT_TRUE(read_npz(path_, 1 << 20, {"V"}).empty());  // what is not wanted takes nothing

  std::string bytes = read_bytes(path_);
  EXPECT_ERROR(read_with(bytes, 22, 24, 0xfffffff0), "claims");  // more than deflate can
}

// Nothing to read, in more columns than could be counted.
TEST_F(NpzHostile, NoRows) {
  std::string header = npy_header("<f4", {0, int64_t{1} << 60});
  header.replace(header.find("False"), 5, "True ");
  OutputFile file(path_);
  ZipWriter zip(file);
  zip.add("W.npy", {header});
  zip.finish();
  file.commit();
  EXPECT_TRUE(read_npz(path_).at("W").values.empty());
}

TEST_F(NpzHostile, TwoMembersOfOneName) {
  OutputFile file(path_);
  ZipWriter zip(file);
  for (int i = 0; i < 2; ++i) zip.add("W.npy", {npy_header("<f4", {0})});
  zip.finish();
  file.commit();
  EXPECT_ERROR(read_npz(path_), "two members");
}

TEST_F(NpzHostile, TruncatedAnywhere) {
  for (const char* name : {"stored.npz", "deflated.npz", "zip64.npz"}) {
    const std::string whole = read_bytes(kData + name);
    for (size_t n = 0; n < whole.size(); ++n) {
      write_bytes(path_, whole.substr(0, n));
      EXPECT_THROW(read_npz(path_), Error) << name << " " << n;
    }
  }
}

// Whatever the bytes: an Error or arrays. Of what is read, no element is wrong: the checksums see
// it, or the flip was in a name.
TEST_F(NpzHostile, BitFlips) {
  std::mt19937 rng(11);
  int accepted = 0;
  for (const char* name : {"stored.npz", "deflated.npz", "zip64.npz"}) {
    const std::string whole = read_bytes(kData + name);
    for (int i = 0; i < 500; ++i) {
      std::string bytes = whole;
      for (uint32_t flips = 1 + rng() % 3; flips > 0; --flips) bytes[rng() % bytes.size()] ^= char(1 << rng() % 8);
      write_bytes(path_, bytes);
      try {
        for (const auto& [key, array] : read_npz(path_, 1 << 24)) {
          ++accepted;
          const size_t n = array.values.size();
          if (n > 1 && key[0] != 'F') {
            EXPECT_EQ(array.values, ramp(int(n))) << name;
          }
        }
      } catch (const Error&) {}
    }
  }
  EXPECT_GT(accepted, 0);
}

NpyHeader parse(const std::string& bytes) { return parse_npy("x.npy", bytes.data(), bytes.size()); }
std::string npy(const std::string& dictionary, int version = 1) {
  std::string s = std::string("\x93NUMPY") + char(version) + '\0';
  const auto length = static_cast<uint32_t>(dictionary.size());
  s.append(reinterpret_cast<const char*>(&length), version == 1 ? 2 : 4);
  return s + dictionary;
}

TEST(Npy, ReadsWhatNumpyWrites) {
  const NpyHeader h = parse(read_bytes(kData + "version2.npy"));
  EXPECT_EQ(h.descr, "<i4");
  EXPECT_EQ(h.shape, Shape{6});
  EXPECT_EQ(h.data_offset + h.bytes(), read_bytes(kData + "version2.npy").size());
  const std::string columns = read_bytes(kData + "fortran.npy");
  EXPECT_ERROR(parse(columns), "ascontiguousarray");
  EXPECT_TRUE(parse_npy("x.npy", columns.data(), columns.size(), true).fortran_order);
  EXPECT_EQ(parse(read_bytes(test_data("eval/tokens.npy"))).shape.size(), 2u);
}

TEST(Npy, WritesWhatItReads) {
  const TempFolder folder;
  const std::string path = folder / "t.npy";
  const int32_t ids[6] = {5, 4, 3, 2, 1, 0};
  for (const Shape& shape : {Shape{6}, Shape{2, 3}, Shape{1, 2, 3}, Shape{}, Shape{0}}) {
    write_npy(path, "<i4", shape, ids);
    const std::string bytes = read_bytes(path);
    const NpyHeader h = parse(bytes);
    EXPECT_EQ(h.shape, shape);
    EXPECT_EQ(h.data_offset % 64, 0u);
    ASSERT_EQ(bytes.size(), h.data_offset + h.bytes());
    EXPECT_EQ(std::memcmp(bytes.data() + h.data_offset, ids, h.bytes()), 0);
  }
  EXPECT_ERROR(write_npy(path, "<q4", {6}, ids), "unknown dtype");
  EXPECT_ERROR(write_npy(path, "<i4", {-6}, ids), "sizes");
}

TEST(Npy, Header) {
  const auto with = [](const char* descr, const char* order, const char* shape) {
    return npy(fmt::format("{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}   \n", descr, order, shape));
  };
  EXPECT_EQ(parse(with("'<f4'", "False", "(2, 3)")).bytes(), 24u);
  EXPECT_EQ(parse(npy("{\"shape\":(2L,),\"descr\":\"|u1\",\"fortran_order\":False}", 3)).bytes(), 2u);
  EXPECT_EQ(parse(with("'<f8'", "True", "(7,)")).bytes(), 56u);  // one dimension has but one order
  EXPECT_EQ(parse(with("'<U5'", "False", "()")).bytes(), 20u);
  EXPECT_EQ(parse(with("'|V2'", "False", "(3,)")).bytes(), 6u);

  EXPECT_ERROR(parse(with("'>f4'", "False", "(2,)")), "big-endian");
  EXPECT_ERROR(parse(with("'<f3'", "False", "(2,)")), "unknown dtype");
  EXPECT_ERROR(parse(with("'f4'", "False", "(2,)")), "unknown dtype");
  EXPECT_ERROR(parse(with("'<f'", "False", "(2,)")), "unknown dtype");
  EXPECT_ERROR(parse(with("'<f99999999999'", "False", "(2,)")), "unknown dtype");
  EXPECT_ERROR(parse(with("[('a', '<f4')]", "False", "(2,)")), "structured");
  EXPECT_ERROR(parse(with("'<f4'", "Maybe", "(2,)")), "neither");
  EXPECT_ERROR(parse(with("'<f4'", "False", "(-2,)")), "sizes");
  EXPECT_ERROR(parse(with("'<f4'", "False", "(99999999999999999999,)")), "sizes");
  EXPECT_ERROR(parse(with("'<f4'", "False", "(2.5,)")), "no ')'");
  EXPECT_ERROR(parse(with("'<f4'", "False", "2")), "no '('");
  EXPECT_ERROR(parse(with("'<f4'", "False", "(4611686018427387904, 2)")), "overflows");
  EXPECT_ERROR(parse(with("'<f4'", "False", "(4611686018427387904, 3, 0)")), "overflows");
  EXPECT_ERROR(parse(with("'<f8'", "False", "(2305843009213693952,)")), "overflows");
  std::string many = "(";
  for (int i = 0; i < 65; ++i) many += "1,";
  EXPECT_ERROR(parse(with("'<f4'", "False", (many + ")").c_str())), "64 dimensions");
  EXPECT_ERROR(parse(with("'<f4', 'descr': '<f8'", "False", "(2,)")), "'descr' where it should not");
  EXPECT_ERROR(parse(npy("{'descr': '<f4', 'shape': (2,)}")), "lacks");
  EXPECT_ERROR(parse(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + 1")), "behind");
  EXPECT_ERROR(parse(npy("{'descr': __import__('os')}")), "no '''");
  EXPECT_ERROR(parse(npy("{'descr': '<f4")), "does not end");
  EXPECT_ERROR(parse(npy("", 4)), "version 4.0");
  EXPECT_ERROR(parse(std::string("\x93NUMPY\2\0\xff\xff\xff\x7f", 12)), "claims");
  EXPECT_ERROR(parse("PK"), "does not begin");

  const std::string whole = with("'<f4'", "False", "(2, 3)");
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_THROW(parse(whole.substr(0, n)), Error) << n;
  std::mt19937 rng(3);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole;
    for (uint32_t flips = 1 + rng() % 4; flips > 0; --flips) bytes[rng() % bytes.size()] ^= char(1 << rng() % 8);
    try {
      const NpyHeader h = parse(bytes);
      EXPECT_GE(h.element_bytes(), 1u);
      EXPECT_LE(h.data_offset, bytes.size());
      EXPECT_EQ(h.bytes() % h.element_bytes(), 0u);
    } catch (const Error&) {}
  }
}

}  // namespace
}  // namespace gsae::test
