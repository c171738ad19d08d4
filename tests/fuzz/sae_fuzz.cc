// sae/sae_file: a JSON and the parameters. Those of SAELens (cfg.json, sae_weights.safetensors), or, where the second
// part is a zip archive, of Gemma Scope or ours (config.json, params.npz).
#include "sae/sae_file.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  namespace fs = std::filesystem;
  const std::vector<std::string_view> parts = test::parts_of(test::text_of(data, size), 2);
  if (parts.size() < 2) return 0;
  const bool npz = parts[1].starts_with("PK");
  const std::string folder = test::fuzz_folder() / (npz ? "npz" : "saelens");
  fs::create_directory(folder);
  test::write_bytes(folder + (npz ? "/config.json" : "/cfg.json"), parts[0]);
  test::write_bytes(folder + (npz ? "/params.npz" : "/sae_weights.safetensors"), parts[1]);
  std::vector<SaeFile> listed;
  test::may_refuse([&] { listed = list_saes(folder); });
  test::may_refuse([&] {
    for (const LoadedSae& sae : load_saes(folder))
      if (listed.size() != 1 || listed[0].width != sae.params.width() || listed[0].latents != sae.params.latents())
        std::abort();  // what was loaded is what was listed
  });
  return 0;
}
