// tools/saved_parameters: the file of --init, for an SAE of 2 inputs and 3 latents.
#include "tests/fuzz/fuzz.h"
#include "tools/saved_parameters.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  static const std::string path = test::fuzz_folder() / "x.safetensors";
  test::write_bytes(path, test::text_of(data, size));
  test::may_refuse([] { SavedParameters(path, 2, 3); });
  return 0;
}
