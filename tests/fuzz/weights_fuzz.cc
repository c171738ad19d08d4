// model/weights: model.safetensors.index.json and the shards a.safetensors and b.safetensors, in this order; or, where
// there is one part alone, model.safetensors. outside.safetensors, in the folder above, may never be opened.
#include "model/weights.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  namespace fs = std::filesystem;
  static const std::string folder = [] {
    const std::string model = test::fuzz_folder() / "model";
    fs::create_directory(model);
    return model;
  }();
  static const GemmaConfig config = [] {
    GemmaConfig c;
    c.vocab = 4, c.width = 2, c.layers = 1, c.heads = 1, c.kv_heads = 1, c.head_width = 2, c.ffn = 2;
    c.sliding = {true};
    return c;
  }();
  static Context ctx(Device::kCpu);
  const std::vector<std::string_view> parts = test::parts_of(test::text_of(data, size), 3);
  static const std::string single = folder + "/model.safetensors";
  const std::string paths[] = {single + ".index.json", folder + "/a.safetensors", folder + "/b.safetensors"};
  fs::remove(single);
  for (const std::string& path : paths) fs::remove(path);
  if (parts.size() == 1) test::write_bytes(single, parts[0]);
  for (size_t i = 0; parts.size() > 1 && i < parts.size(); ++i) test::write_bytes(paths[i], parts[i]);
  test::may_refuse([] {
    const GemmaWeights weights(ctx, folder, config, DType::kF32);
    weights.require_finite(ctx, 0);
    weights.require_finite_embedding(ctx);
  });
  return 0;
}
