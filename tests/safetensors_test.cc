#include "io/safetensors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "io/half.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kData = test_data("formats/");

float ramp(int i) { return float(i * 7 % 23 - 11) / 4; }  // as make_formats.py

// The bytes of a file with this header and `data` bytes behind it.
std::string file_of(const std::string& header, size_t data, uint64_t length = ~uint64_t{0}) {
  if (length == ~uint64_t{0}) length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data, '\1');
}

class Safetensors : public testing::Test {
 protected:
  // The reason why these bytes are refused.
  std::string refusal(const std::string& bytes) {
    write_bytes(path_, bytes);
    return error_of([&] { SafetensorsFile{path_}; });
  }
  void expect_refused(const std::string& bytes, const std::string& why) {
    const std::string message = refusal(bytes);
    EXPECT_NE(message.find(why), std::string::npos) << "'" << why << "' is not in: " << message;
    EXPECT_EQ(message.find(path_), 0u) << "must begin with the file: " << message;
  }

  TempFolder folder_;
  std::string path_ = folder_ / "x.safetensors";
};

TEST_F(Safetensors, ReadsEveryDtypeThatTorchWrites) {
  const SafetensorsFile file(kData + "dtypes.safetensors");
  EXPECT_EQ(file.tensors().size(), 17u);
  EXPECT_EQ(file.metadata().at("note"), "naïve \"quotes\"");
  for (const char* dtype : {"F64", "F32", "F16", "BF16"}) {
    const StoredTensor& t = file.get(dtype);
    EXPECT_EQ(t.dtype, dtype);
    EXPECT_EQ(t.shape, (std::vector<int64_t>{2, 3}));
    const std::vector<float> v = to_f32(t);
    ASSERT_EQ(v.size(), 6u);
    for (int i = 0; i < 6; ++i) EXPECT_EQ(v[i], ramp(i)) << dtype;  // exact: ramp fits all of them
  }
  for (const auto& [dtype, bytes] : std::map<std::string, size_t>{
           {"I64", 8}, {"I32", 4}, {"I16", 2}, {"I8", 1}, {"U64", 8}, {"U32", 4}, {"U16", 2}, {"U8", 1}}) {
    const StoredTensor& t = file.get(dtype);
    EXPECT_EQ(t.dtype, dtype);
    ASSERT_EQ(t.bytes, 6 * bytes);
    for (int i = 0; i < 6; ++i) {
      uint64_t v = 0;
      std::memcpy(&v, t.data + i * bytes, bytes);
      EXPECT_EQ(v, uint64_t(i * 7 % 23)) << dtype;
    }
    EXPECT_ERROR(to_f32(t), dtype);
  }
  EXPECT_EQ(file.get("BOOL").bytes, 6u);
  EXPECT_EQ(file.get("F8_E4M3").bytes, 6u);
  EXPECT_ERROR(to_f32(file.get("F8_E5M2")), "F8_E5M2");
  EXPECT_EQ(to_f32(file.get("scalar")), std::vector{2.5f});
  EXPECT_EQ(file.get("empty").size(), 0);
  EXPECT_TRUE(to_f32(file.get("empty")).empty());
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_ERROR(file.get("absent"), "BF16");  // lists what is there
}

// Against the definition in doubles: every one of the 65536 patterns.
TEST(Half, EveryPattern) {
  for (int h = 0; h < 65536; ++h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    double want = exponent == 0    ? std::ldexp(mantissa, -24)
                  : exponent == 31 ? (mantissa ? NAN : HUGE_VAL)
                                   : std::ldexp(1024 + mantissa, exponent - 25);
    if (h & 0x8000) want = -want;
    const float got = half_to_float(static_cast<uint16_t>(h));
    if (std::isnan(want)) ASSERT_TRUE(std::isnan(got)) << h;
    else ASSERT_TRUE(got == want && std::signbit(got) == std::signbit(want)) << h << ": " << got;
  }
}

TEST_F(Safetensors, MappedViewIsTheFileAndOnlyIfAligned) {
  const SafetensorsFile file(kData + "dtypes.safetensors");
  const Tensor t = mapped_view(file.get("F32"));
  EXPECT_TRUE(t.is({2, 3}));
  EXPECT_EQ(static_cast<void*>(t.ptr), static_cast<const void*>(file.get("F32").data));
  EXPECT_EQ(t.data<float>()[1], ramp(1));
  EXPECT_EQ(mapped_view(file.get("I64")).data<int64_t>()[5], 12);
  EXPECT_FALSE(mapped_view(file.get("F16")));
  EXPECT_FALSE(mapped_view(file.get("F64")));
  EXPECT_FALSE(mapped_view(file.get("scalar")));

  std::string bytes = file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                              R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})",
                              5);
  while (bytes.size() % 8 != 5) bytes.insert(bytes.size() - 5, " ");
  const uint64_t length = bytes.size() - 13;
  std::memcpy(bytes.data(), &length, 8);
  write_bytes(path_, bytes);
  const SafetensorsFile odd(path_);
  EXPECT_FALSE(mapped_view(odd.get("b")));
  EXPECT_EQ(to_f32(odd.get("b"))[0], std::bit_cast<float>(0x01010101));
}

TEST_F(Safetensors, RefusesLies) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return fmt::format(R"({{"t":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape, offsets);
  };
  const auto two = [](const std::string& a, const std::string& b) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                       a, b);
  };
  write_bytes(path_, file_of(one("F32", "[2]", "[0,8]"), 8));
  EXPECT_NO_THROW(SafetensorsFile{path_});
  write_bytes(path_, file_of(two("[4,8]", "[0,4]"), 8));
  EXPECT_NO_THROW(SafetensorsFile{path_});

  expect_refused("", "has 0 bytes");
  expect_refused(file_of("", 0), "not a JSON object");
  expect_refused(file_of(one("F32", "[2]", "[0,8]"), 8, ~uint64_t{0} - 1), "header claims");
  expect_refused(file_of(one("F32", "[2]", "[0,8]"), 8, uint64_t{1} << 63), "header claims");
  expect_refused(file_of(one("F32", "[2]", "[0,8]"), 8, 1000), "header claims");
  expect_refused(file_of(one("F32", "[2]", "[0,8]"), 8, 5), "not valid JSON");
  expect_refused(file_of("[1, 2, 3]", 0), "not a JSON object");
  expect_refused(file_of(R"({"t":[]})", 0), "not described by an object");
  expect_refused(file_of(R"({"t":{}})", 0), "no valid 'dtype'");
  expect_refused(file_of(one("F33", "[2]", "[0,8]"), 8), "unknown dtype 'F33'");
  expect_refused(file_of(one("F32", "2", "[0,8]"), 8), "no valid 'shape'");
  expect_refused(file_of(one("F32", "[-2]", "[0,8]"), 8), "natural");
  expect_refused(file_of(one("F32", "[2.0]", "[0,8]"), 8), "natural");
  expect_refused(file_of(one("F32", "[18446744073709551615]", "[0,8]"), 8), "shape holds");
  expect_refused(file_of(one("F32", "[4611686018427387904,4]", "[0,0]"), 0), "overflows");
  expect_refused(file_of(one("F32", "[4611686018427387904,4,0]", "[0,0]"), 0), "overflows");
  expect_refused(file_of(one("F32", "[4611686018427387904,3,0]", "[0,0]"), 0), "overflows");  // signed alone
  expect_refused(file_of(one("F64", "[2305843009213693952]", "[0,0]"), 0), "overflows");      // in bytes alone
  expect_refused(file_of(one("F4", "[3]", "[0,2]"), 2), "whole bytes");
  expect_refused(file_of(one("F32", "[2]", "[0]"), 8), "two data_offsets");
  expect_refused(file_of(one("F32", "[2]", "[-8,0]"), 8), "natural");
  expect_refused(file_of(one("F32", "[2]", "[8,0]"), 8), "lies at bytes");
  expect_refused(file_of(one("F32", "[2]", "[0,16]"), 8), "lies at bytes");
  expect_refused(file_of(one("F32", "[2]", "[18446744073709551608,18446744073709551615]"), 8), "lies at bytes");
  expect_refused(file_of(one("F32", "[3]", "[0,8]"), 8), "needs 12");
  expect_refused(file_of(one("BF16", "[2]", "[0,8]"), 8), "needs 4");
  expect_refused(file_of(one("F32", "[2]", "[0,8]"), 9), "unused bytes at its end");
  expect_refused(file_of(one("F32", "[2]", "[4,12]"), 12), "unused bytes before");
  expect_refused(file_of(two("[0,4]", "[2,6]"), 6), "overlaps");
  expect_refused(file_of(two("[0,4]", "[0,4]"), 4), "overlaps");
  expect_refused(file_of(two("[0,4]", "[5,9]"), 9), "unused bytes before");
  expect_refused(file_of(R"({"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                         R"("t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                         0),
                 "twice");
  expect_refused(file_of(R"({"__metadata__":{"a":1}})", 0), "not a string");
  expect_refused(file_of(R"({"__metadata__":[]})", 0), "not an object");
  expect_refused(file_of("{\"\xff\xfe\":{}}", 0), "UTF-8");
  expect_refused(file_of("{\"t\":" + std::string(100000, '[') + std::string(100000, ']') + "}", 0), "nested");
  expect_refused(file_of("{\"t\":" + std::string(100000, '['), 0), "nested");
  EXPECT_LT(refusal(file_of("{\"t\":\"" + std::string(100000, 'x'), 0)).size(), 600u);  // quotes little
}

TEST_F(Safetensors, TruncatedAnywhere) {
  const std::string whole = read_bytes(kData + "dtypes.safetensors");
  for (size_t n = 0; n < whole.size(); ++n) {
    write_bytes(path_, whole.substr(0, n));
    EXPECT_THROW(SafetensorsFile{path_}, Error) << n;
  }
}

// Whatever the bytes, an Error or tensors that can be read to their last element.
TEST_F(Safetensors, BitFlips) {
  const std::string whole = read_bytes(kData + "dtypes.safetensors");
  std::mt19937 rng(7);
  int accepted = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = whole;
    for (uint32_t flips = 1 + rng() % 3; flips > 0; --flips) bytes[rng() % bytes.size()] ^= char(1 << rng() % 8);
    write_bytes(path_, bytes);
    try {
      const SafetensorsFile file(path_);
      ++accepted;
      for (const auto& [name, t] : file.tensors()) {
        unsigned sum = 0;
        for (size_t b = 0; b < t.bytes; ++b) sum += unsigned(t.data[b]);
        if (t.dtype == "F32") sum += unsigned(to_f32(t).size());
        ASSERT_GE(sum, 0u);
      }
    } catch (const Error&) {}
  }
  EXPECT_GT(accepted, 0);  // flips in the data alone
}

TEST_F(Safetensors, WritesWhatItReads) {
  std::vector<float> w(7 * 5);
  for (size_t i = 0; i < w.size(); ++i) w[i] = ramp(int(i));
  const std::vector<int32_t> ids{1, 2, 3, 4, 5, 6, 7};
  const uint8_t bytes[3] = {9, 8, 7};
  {
    SafetensorsWriter out(path_,
                          {{"bytes", "U8", {3}},
                           {"w", "F32", {7, 5}},
                           {"ids", "I32", {7}},
                           {"none", "BF16", {0, 5}},
                           {"scalar", "I64", {}}},
                          {{"made_by", "a \"test\" naïve"}});
    const int64_t scalar = -3;
    out.append("scalar", &scalar, 8);
    for (int row = 0; row < 7; ++row) {  // rows of two tensors arrive together
      out.append("w", w.data() + row * 5, 20);
      out.append("ids", ids.data() + row, 4);
    }
    out.append("bytes", bytes, 1);
    out.append("bytes", bytes + 1, 2);
    EXPECT_FALSE(std::filesystem::exists(path_));  // not before close()
    out.close();
  }
  EXPECT_EQ(folder_.count(), 1);
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.metadata().at("made_by"), "a \"test\" naïve");
  EXPECT_EQ(to_f32(file.get("w")), w);
  EXPECT_EQ(std::memcmp(file.get("ids").data, ids.data(), 28), 0);
  EXPECT_EQ(std::memcmp(file.get("bytes").data, bytes, 3), 0);
  EXPECT_EQ(file.get("none").shape, (std::vector<int64_t>{0, 5}));
  EXPECT_TRUE(file.get("scalar").shape.empty());
  // All aligned, although a tensor of 3 bytes was declared first.
  EXPECT_TRUE(mapped_view(file.get("w")));
  EXPECT_TRUE(mapped_view(file.get("ids")));
}

TEST_F(Safetensors, WriterLeavesNothingHalfDone) {
  {
    SafetensorsWriter out(path_, {{"w", "F32", {2}}});
    const float two[2] = {1, 2};
    out.append("w", two, 4);
    EXPECT_ERROR(out.append("w", two, 8), "room for 4");
    EXPECT_ERROR(out.append("v", two, 4), "not declared");
    EXPECT_ERROR(out.close(), "4 of its 8 bytes");
  }
  EXPECT_EQ(folder_.count(), 0);
  EXPECT_ERROR(SafetensorsWriter(path_, {{"w", "F31", {2}}}), "unknown dtype");
  EXPECT_ERROR(SafetensorsWriter(path_, {{"w", "F32", {-2}}}), "negative");
  EXPECT_ERROR(SafetensorsWriter(path_, {{"w", "F32", {int64_t{1} << 62, 4}}}), "overflows");
  EXPECT_ERROR(SafetensorsWriter(path_, {{"w", "F32", {2}}, {"w", "F32", {2}}}), "twice");
  EXPECT_ERROR(SafetensorsWriter(path_, {{"\xff", "F32", {2}}}), "UTF-8");
  EXPECT_ERROR(SafetensorsWriter(folder_ / "absent/x", {{"w", "F32", {2}}}), "create the folder");
  EXPECT_EQ(folder_.count(), 0);
}

TEST_F(Safetensors, NotAFile) {
  EXPECT_ERROR(SafetensorsFile{folder_.path()}, "folder");
  EXPECT_ERROR(SafetensorsFile{folder_ / "absent"}, "No such file");
}

}  // namespace
}  // namespace gsae::test
