// io/tokenizer and io/sentencepiece_spec: a tokenizer.model, and a text behind it.
#include "io/tokenizer.h"

#include "io/sentencepiece_spec.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "tokenizer.model";
  const std::vector<std::string_view> parts = test::parts_of(test::text_of(data, size), 2);
  (void)read_sentencepiece_spec(parts[0]);
  test::write_bytes(path, parts[0]);
  test::may_refuse([&] {
    const Tokenizer tokenizer(path);
    const std::string_view text = parts.size() > 1 ? parts[1] : "A house, 12 hills\n and <bos> a r\xc3\xa9sum\xc3\xa9";
    const std::vector<int32_t> ids = tokenizer.encode(text);
    std::vector<int32_t> by_word;
    WordEncoder(tokenizer).encode(by_word, text);
    for (const int32_t id : ids) (void)tokenizer.piece(id);
    (void)tokenizer.decode(ids);
    (void)tokenizer.bos();
  });
  return 0;
}
