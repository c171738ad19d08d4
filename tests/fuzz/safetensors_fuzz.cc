// io/safetensors: a file of any bytes; of what is accepted, every tensor lies within the file and can be read.
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "x.safetensors";
  test::write_bytes(path, test::text_of(data, size));
  test::may_refuse([] {
    const SafetensorsFile file(path);
    uint64_t sum = 0;
    for (const auto& [name, t] : file.tensors()) {
      for (size_t i = 0; i < t.bytes; ++i) sum += static_cast<uint64_t>(t.data[i]);
      const Tensor v = mapped_view(t);
      CHECK(!v || v.bytes() == t.bytes, "a view of other bytes");
      test::may_refuse([&t = t] { CHECK(int64_t(to_f32(t).size()) == t.size(), "other elements"); });
    }
    if (sum == ~uint64_t{0}) std::abort();  // what was read counts
  });
  return 0;
}
