// io/documents over line_reader, text_pieces, json_field and utf8: the first byte says whether the others are .jsonl or
// .txt, and whether malformed parts are passed over. Small limits, so that small inputs meet them.
#include "io/documents.h"
#include "io/utf8.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  if (size == 0) return 0;
  const std::string path = test::fuzz_folder() / (data[0] & 1 ? "x.txt" : "x.jsonl");
  DocumentOptions options;
  options.skip_bad = data[0] & 2;
  options.max_line_bytes = 1 << 10, options.max_text_bytes = 256;
  test::write_bytes(path, test::text_of(data + 1, size - 1));
  test::may_refuse([&] {
    DocumentReader reader(path, options);
    for (std::string text; reader.next(text);)
      if (valid_utf8_prefix(text) != text.size()) std::abort();
  });
  return 0;
}
