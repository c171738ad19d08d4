// io/byte_source and io/stored_size: .gz or .zst, as the first byte says. However much comes out, little of it is held.
#include "io/byte_source.h"
#include "io/documents.h"
#include "io/stored_size.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  if (size == 0) return 0;
  const std::string path = test::fuzz_folder() / (data[0] & 1 ? "x.jsonl.gz" : "x.jsonl.zst");
  test::write_bytes(path, test::text_of(data + 1, size - 1));
  test::may_refuse([&] {
    const int64_t most = int64_t{1} << 40, claimed = stored_text_bytes(path, most);
    if (claimed < 0 || claimed > most) std::abort();
  });
  test::may_refuse([&] {
    const auto source = open_bytes(path);
    std::vector<char> buffer(1 + data[0] * 37);
    for (int i = 0; i < 2000 && source->read(buffer.data(), buffer.size()) > 0; ++i) {}
  });
  test::may_refuse([&] {
    DocumentOptions options;
    options.skip_bad = data[0] & 2;
    options.max_line_bytes = 1 << 16;
    DocumentReader reader(path, options);
    std::string text;
    for (int i = 0; i < 1000 && reader.next(text); ++i) {}
  });
  return 0;
}
