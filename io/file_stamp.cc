#include "io/file_stamp.h"

#include <xxhash.h>

#include <algorithm>
#include <vector>

#include "io/mapped_file.h"

namespace gsae {

FileStamp stamp_file(const std::string& path) {
  if (path == "-") return {.path = path};
  constexpr size_t kEnd = size_t{64} << 10;
  const MappedFile file(path);
  const size_t first = std::min(file.size(), kEnd), last = std::min(file.size() - first, kEnd);
  std::vector<std::byte> hashed(file.data(), file.data() + first);
  hashed.insert(hashed.end(), file.data() + (file.size() - last), file.data() + file.size());
  for (int shift = 0; shift < 64; shift += 8) hashed.push_back(static_cast<std::byte>(uint64_t{file.size()} >> shift));
  return {.path = path, .bytes = static_cast<int64_t>(file.size()), .hash = XXH3_64bits(hashed.data(), hashed.size())};
}

}  // namespace gsae
