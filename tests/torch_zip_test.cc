#include "io/torch_zip.h"

#include <cstring>

#include "io/output_file.h"
#include "io/zip_writer.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

const std::string kData = test_data("formats/");

std::vector<float> ramp(int n) {
  std::vector<float> v;
  for (int i = 0; i < n; ++i) v.push_back(float(i * 7 % 23 - 11) / 4);
  return v;
}

std::vector<float> read(TorchFile& file, const std::string& name) {
  const PickledTensor& t = file.tensors().at(name);
  std::vector<float> v(static_cast<size_t>(t.size()));
  file.read(v.data(), t);
  return v;
}

using Shape = std::vector<int64_t>;

// What torch.save wrote (tests/data/make_formats.py): every dtype, views, a module's state dict.
TEST(TorchZip, ReadsWhatTorchWrites) {
  TorchFile file(kData + "dtypes.pt");
  EXPECT_EQ(file.tensors().size(), 8u);
  for (const char* dtype : {"F64", "F32", "F16", "BF16"}) {
    EXPECT_EQ(file.tensors().at(dtype).shape, (Shape{2, 3})) << dtype;
    EXPECT_EQ(read(file, dtype), ramp(6)) << dtype;
  }
  const std::vector<float> r = ramp(6);
  EXPECT_EQ(file.tensors().at("transposed").shape, (Shape{3, 2}));
  EXPECT_EQ(file.tensors().at("transposed").strides, (Shape{1, 3}));
  EXPECT_EQ(read(file, "transposed"), (std::vector<float>{r[0], r[3], r[1], r[4], r[2], r[5]}));
  EXPECT_EQ(file.tensors().at("tail").offset, 2);
  EXPECT_EQ(file.tensors().at("tail").storage, file.tensors().at("F32").storage);
  EXPECT_EQ(read(file, "tail"), std::vector<float>(r.begin() + 2, r.end()));
  EXPECT_EQ(read(file, "scalar"), std::vector<float>{2.5f});
  EXPECT_EQ(file.tensors().at("empty").shape, (Shape{0, 4}));
  EXPECT_TRUE(read(file, "empty").empty());

  TorchFile module(kData + "module.pt");
  EXPECT_EQ(module.tensors().size(), 2u);
  EXPECT_EQ(read(module, "weight"), ramp(6));
  EXPECT_EQ(read(module, "bias"), ramp(2));
}

TEST(TorchZip, RoundTrip) {
  const TempFolder dir;
  const std::vector<float> a = ramp(6), b = ramp(70000), c{-0.0f, 1e-40f};
  const std::vector<TorchMember> tensors{{"a", {2, 3}, a.data()}, {"b", {70000}, b.data()}, {"c", {2, 1, 1}, c.data()}};
  write_torch(dir / "x.pt", tensors);
  TorchFile file(dir / "x.pt");
  ASSERT_EQ(file.tensors().size(), 3u);
  for (const TorchMember& t : tensors) {
    EXPECT_EQ(file.tensors().at(t.name).shape, t.shape);
    const std::vector<float> v = read(file, t.name);
    EXPECT_EQ(std::memcmp(v.data(), t.data, v.size() * sizeof(float)), 0) << t.name;
  }
}

// Storages begin at multiples of 64, as torch.save lays them; equal content gives equal bytes.
TEST(TorchZip, AlignsItsStorages) {
  const TempFolder dir;
  const std::vector<float> a(5, 1.25f), b(3, 2.5f);
  for (const char* folder : {"1", "2"}) {
    std::filesystem::create_directories(dir / folder);
    write_torch(dir / (folder + std::string("/ae.pt")), {{"a", {5}, a.data()}, {"b", {3}, b.data()}});
  }
  const std::string bytes = read_bytes(dir / "1/ae.pt");
  EXPECT_EQ(bytes, read_bytes(dir / "2/ae.pt"));
  for (const std::vector<float>& v : {a, b}) {
    const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(float)));
    ASSERT_NE(at, bytes.npos);
    EXPECT_EQ(at % 64, 0u);
  }
  EXPECT_EQ(bytes.substr(30, 11), "ae/data.pkl");
  EXPECT_ERROR(write_torch(dir / "absent/x.pt", {}), "create the folder");
}

// Archives that torch.save would not write.
class HostileTorch : public ::testing::Test {
 protected:
  void write(const std::vector<std::pair<std::string, std::string>>& members) {
    OutputFile file(path_);
    ZipWriter zip(file);
    for (const auto& [name, content] : members) zip.add(name, {content});
    zip.finish();
    file.commit();
  }
  // The Error of a file with this pickle and a storage 0 of two f32.
  std::string error(const std::string& pickle) {
    write({{"x/data.pkl", pickle}, {"x/data/0", std::string(8, '\0')}});
    return error_of([&] { TorchFile file(path_); });
  }
  void expect(const std::string& pickle, const std::string& part) {
    const std::string message = error(pickle);
    EXPECT_NE(message.find(part), message.npos) << "'" << part << "' is not in: " << message;
  }

  TempFolder dir_;
  std::string path_ = dir_ / "x.pt";
};

const std::string kProto("\x80\x02", 2);
std::string str(const std::string& s) { return "X" + std::string(1, char(s.size())) + std::string(3, '\0') + s; }
std::string byte(int n) { return "K" + std::string(1, char(n)); }
std::string large(int64_t n) { return "\x8a\x08" + std::string(reinterpret_cast<const char*>(&n), 8); }
std::string storage(const std::string& elements = byte(2), const std::string& key = "0") {
  return "(" + str("storage") + "ctorch\nFloatStorage\n" + str(key) + str("cpu") + elements + "tQ";
}
std::string tensor(const std::string& sizes, const std::string& strides, const std::string& of = storage(),
                   const std::string& offset = byte(0)) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + of + offset + "(" + sizes + "t(" + strides +
         "t\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string dict(const std::string& value) { return kProto + "}" + str("W") + value + "s."; }

TEST_F(HostileTorch, WhatIsGood) {
  for (const std::string& good : {tensor(byte(2), byte(1)), tensor(byte(1) + byte(2), byte(77) + byte(1)),
                                  tensor(byte(2) + byte(1), byte(1) + byte(2)), tensor("", "")}) {
    write({{"x/data.pkl", dict(good)}, {"x/data/0", std::string(8, '\0')}});
    EXPECT_EQ(TorchFile(path_).tensors().size(), 1u);
  }
  write({{"x/data.pkl", kProto + "}."}});
  EXPECT_TRUE(TorchFile(path_).tensors().empty());
}

// Nothing is ever run: what is not a state dict's word is refused by name.
TEST_F(HostileTorch, EvilPickles) {
  expect(kProto + "cos\nsystem\n(" + str("touch /tmp/evil") + "tR.", "os.system");
  expect(kProto + "c__builtin__\neval\n(" + str("1") + "tR.", "__builtin__.eval");
  expect(kProto + "ctorch\nload\n.", "torch.load");
  expect(kProto + "ctorch.storage\nFloatStorage\n.", "torch.storage.FloatStorage");
  expect(kProto + "ctorch\nLongStorage\n.", "torch.LongStorage");
  expect(kProto + str("os") + str("system") + "\x93.", "os.system");
  expect("cos\nsystem\n(S'x'\ntR.", "os.system");  // protocol 0
  expect(kProto + "(ios\nsystem\n.", "0x69");      // INST
  expect(kProto + "(ctorch\nFloatStorage\no.", "0x6f");
  expect(kProto + "\x82\x01.", "0x82");  // EXT1
  expect(kProto + "}\x81.", "0x81");     // NEWOBJ
  expect("\x80\x09.", "protocol 9");
  expect(kProto + "ctorch\nFloatStorage\n" + byte(1) + "\x85R.", "called");
  expect(kProto + "ccollections\nOrderedDict\n" + byte(1) + "\x85R.", "OrderedDict is made of");
  expect(kProto + "ctorch._utils\n_rebuild_tensor_v2\n" + byte(1) + "\x85R.", "not described");
}

TEST_F(HostileTorch, PicklesThatMakeNoSense) {
  expect("", "cut short");
  expect(kProto, "cut short");
  expect(kProto + ".", "no");
  expect(kProto + "}}.", "more than one value");
  expect(kProto + byte(3) + ".", "a number instead of a state dict");
  expect(dict(byte(1)), "'W' is a number");
  expect(kProto + "}" + byte(1) + byte(2) + "s.", "a key of its state dict");
  expect(kProto + "}(" + str("a") + "u.", "without a value");
  expect(kProto + "}u.", "a mark that is not there");
  expect(kProto + "}s.", "takes a value");
  expect(kProto + "(}(\x85.", "a mark stands");
  expect(kProto + "h\1.", "recalls value 1");
  expect(kProto + "q\1.", "remembers");
  expect(kProto + "X\xff\xff\xff\xff.", "cut short");
  expect(kProto +
             "\x8a\x09"
             "123456789.",
         "9 bytes");
  expect(kProto + "cabc", "cut short");
  expect(kProto + "}q\1" + str("a") + "h\1sh\1.", "more than one value");
  expect(kProto + "}q\1" + str("a") + "h\1s.", "'a' is a dict");  // which holds itself
  expect(kProto + "}" + str("W") + storage() + "s.", "a storage");
  std::string names = kProto + "}(";
  for (int i = 0; i < 5000; ++i) names += str(std::to_string(i)) + tensor("", "");
  expect(names + "u.", "more than 4096");
  expect(kProto + "}X" + std::string("\x2c\1\0\0", 4) + std::string(300, 'a') + tensor("", "") + "s.", "300 bytes");
}

// Sizes and strides that leave the storage, or lie about it.
TEST_F(HostileTorch, Extents) {
  expect(dict(tensor(byte(3), byte(1))), "element 2 of a storage of 2");
  expect(dict(tensor(byte(2), byte(2))), "element 2 of a storage of 2");
  expect(dict(tensor(byte(2), byte(1), storage(), byte(1))), "element 2 of a storage of 2");
  expect(dict(tensor("", "", storage(), byte(2))), "element 2 of a storage of 2");
  expect(dict(tensor(byte(2), large(int64_t{1} << 62))), "element 4611686018427387904");
  expect(dict(tensor(byte(3), large(int64_t{1} << 62))), "overflow");
  expect(dict(tensor(large(int64_t{1} << 40) + large(int64_t{1} << 40), byte(0) + byte(0))), "overflow");
  expect(dict(tensor(large(int64_t{1} << 40), byte(0))), "is a view");  // one element, a million million times
  expect(dict(tensor(large(-2), byte(1))), "size is -2");
  expect(dict(tensor(byte(2), large(-1))), "stride is -1");
  expect(dict(tensor(byte(2), byte(1), storage(), large(-1))), "offset is -1");
  expect(dict(tensor(byte(2), byte(1) + byte(1))), "1 sizes and 2 strides");
  expect(dict(tensor(str("2"), byte(1))), "is a string");
  expect(dict(tensor(byte(1), byte(1), storage(byte(3)))), "3 elements of 4 bytes are claimed");
  expect(dict(tensor(byte(1), byte(1), storage(large(int64_t{1} << 62)))), "claimed");
  expect(dict(tensor(byte(1), byte(1), storage(byte(2), "1"))), "storage 1 of 'W' is not there");
  std::string nine;
  for (int i = 0; i < 9; ++i) nine += byte(1);
  expect(dict(tensor(nine, nine)), "9 dimensions");
}

TEST_F(HostileTorch, Archives) {
  const std::string good = dict(tensor(byte(2), byte(1))), zeros(8, '\0');
  write({{"x/data.pkl", good}, {"y/data.pkl", good}, {"x/data/0", zeros}});
  EXPECT_ERROR(TorchFile{path_}, "two data.pkl");
  write({{"x/data.pkl", good}, {"x/data/0", zeros}, {"x/data/0", zeros}});
  EXPECT_ERROR(TorchFile{path_}, "two members");
  write({{"x/data.pkl", good}, {"x/byteorder", "big"}, {"x/data/0", zeros}});
  EXPECT_ERROR(TorchFile{path_}, "'big'");
  write({{"x/code/data.pkl", good}, {"x/data/0", zeros}});
  EXPECT_ERROR(TorchFile{path_}, "no data.pkl");
  write({{"x/data.pkl", std::string((1 << 20) + 1, 'N')}});
  EXPECT_ERROR(TorchFile{path_}, "more than");
  write({{"x/data.pkl", kProto + "}(" + str("W") + tensor("", "") + str("W") + tensor("", "") + "u."},
         {"x/data/0", zeros}});
  EXPECT_ERROR(TorchFile{path_}, "two tensors 'W'");
  write_bytes(path_, "\x80\x02\x8a\nl\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");  // torch.save before version 1.6
  EXPECT_ERROR(TorchFile{path_}, "a PyTorch file (a zip archive)");
  EXPECT_ERROR(TorchFile{dir_ / "absent.pt"}, "absent.pt");
}

// Every truncation, and every byte changed: an Error or the same tensors, never anything else.
TEST_F(HostileTorch, DamagedFiles) {
  const std::string whole = read_bytes(kData + "module.pt");
  const auto try_to_read = [&](const std::string& bytes) {
    write_bytes(path_, bytes);
    try {
      TorchFile file(path_);
      for (const auto& [name, t] : file.tensors()) {
        std::vector<float> v(static_cast<size_t>(t.size()));
        file.read(v.data(), t);
      }
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(try_to_read(whole));
  for (size_t n = 0; n < whole.size(); n += 7) EXPECT_FALSE(try_to_read(whole.substr(0, n))) << n;
  int read = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string bytes = whole;
    bytes[i] = static_cast<char>(bytes[i] ^ 0x5a);
    read += try_to_read(bytes);
  }
  EXPECT_LT(read, int(whole.size()));
}

}  // namespace
}  // namespace gsae::test
