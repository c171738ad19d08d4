// io/npz: an archive, listed and read, with a bound on what it may take.
#include "io/npz.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  constexpr size_t kMost = size_t{64} << 20;
  static const std::string path = test::fuzz_folder() / "x.npz";
  test::write_bytes(path, test::text_of(data, size));
  test::may_refuse([] {
    for (const NpzEntry& entry : list_npz(path)) (void)entry.header.bytes();
  });
  test::may_refuse([] {
    size_t taken = 0;
    for (const auto& [name, array] : read_npz(path, kMost)) {
      int64_t n = 1;
      for (const int64_t dim : array.shape) n *= dim;
      taken += array.values.size() * sizeof(float);
      if (n != int64_t(array.values.size())) std::abort();
    }
    if (taken > kMost) std::abort();
  });
  return 0;
}
