// sae/sae_file and the formats behind it: a digit that says which, a JSON, and the parameters.
#include "sae/sae_file.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  namespace fs = std::filesystem;
  struct Format {
    const char *json, *parameters;
  };
  static constexpr Format kFormats[] = {{"config.json", "params.npz"},
                                        {"cfg.json", "sae_weights.safetensors"},
                                        {"config.json", "params.safetensors"},
                                        {"config.json", "ae.pt"},
                                        {"config.json", "layer_3.safetensors"}};
  std::vector<std::string_view> parts = test::parts_of(test::text_of(data, size), 2);
  if (parts.size() < 2 || parts[0].empty()) return 0;
  const size_t which = static_cast<unsigned char>(parts[0][0] - '0') % std::size(kFormats);
  const std::string folder = test::fuzz_folder() / kFormats[which].parameters;
  fs::create_directory(folder);
  test::write_bytes(folder + "/" + kFormats[which].json, parts[0].substr(1));
  test::write_bytes(folder + "/" + kFormats[which].parameters, parts[1]);
  std::vector<SaeFile> listed;
  test::may_refuse([&] { listed = list_saes(folder); });
  for (const SaeFile& file : listed) test::may_refuse([&] { describe_sae(file); });
  test::may_refuse([&] {
    for (const LoadedSae& sae : load_saes(folder))
      if (listed.size() != 1 || listed[0].width != sae.params.width() || listed[0].latents != sae.params.latents())
        std::abort();  // what was loaded is what was listed
  });
  return 0;
}
