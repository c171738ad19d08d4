// io/token_files: the first byte says as which kind of file the others are read.
#include "io/token_files.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gsae;
  if (size == 0) return 0;
  static const std::string names[] = {"x.npy", "x.bin", "x.safetensors"};
  const std::string path = test::fuzz_folder() / names[data[0] % 3];
  const std::string dtype = data[0] & 64 ? "uint32" : "uint16";
  test::write_bytes(path, test::text_of(data + 1, size - 1));
  test::may_refuse([&] {
    const TokenFile file(path, dtype);
    if (file.is_stream()) {
      StreamDocuments documents(file, 2, 1, 1 << 20);
      std::vector<int32_t> ids;
      int64_t sum = 0;
      while (documents.next(ids)) sum += int64_t(ids.size());
      if (sum != file.width()) std::abort();
    }
    std::vector<int32_t> row(static_cast<size_t>(file.width()));
    for (int64_t r = 0; r < file.rows(); ++r) file.read(row.data(), r, 0, file.width(), 0);
  });
  return 0;
}
