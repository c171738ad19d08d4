// model/config: a model's config.json.
#include "model/config.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "config.json";
  test::write_bytes(path, test::text_of(data, size));
  test::may_refuse([] {
    const GemmaConfig c = read_config(test::fuzz_folder().path());
    const bool sane = c.vocab > 0 && c.width > 0 && c.layers > 0 && c.kv_heads > 0 && c.heads % c.kv_heads == 0 &&
                      c.head_width % 2 == 0 && int64_t(c.sliding.size()) == c.layers && c.bos >= 0 && c.bos < c.vocab;
    const float numbers[] = {float(c.query_scale), float(c.attention_cap), float(c.logit_cap), float(c.rope_theta),
                             float(c.norm_eps)};
    if (!sane) std::abort();
    for (const float x : numbers)
      if (!(x >= 0 && x < 1e30f)) std::abort();
  });
  return 0;
}
