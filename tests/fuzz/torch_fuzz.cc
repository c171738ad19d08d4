// io/torch_zip and io/torch_pickle: a PyTorch file; or, where it is no zip archive, the pickle alone.
#include "io/torch_zip.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "ae.pt";
  const std::string_view input = test::text_of(data, size);
  if (!input.starts_with("PK")) {
    test::may_refuse([&] {
      for (const PickledTensor& t : parse_state_dict(path, input))
        if (t.size() < 0 || t.strides.size() != t.shape.size()) std::abort();
    });
    return 0;
  }
  test::write_bytes(path, input);
  test::may_refuse([] {
    constexpr int64_t kMost = int64_t{1} << 24;  // elements: of a bomb that is what it claims
    TorchFile file(path);
    for (const auto& [name, t] : file.tensors()) {
      if (t.size() > kMost) continue;
      std::vector<float> values(static_cast<size_t>(t.size()));
      test::may_refuse([&, &t = t] { file.read(values.data(), t); });
    }
  });
  return 0;
}
