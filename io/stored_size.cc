#include "io/stored_size.h"

#include <zstd.h>

#include <algorithm>

#include "io/documents.h"
#include "io/mapped_file.h"

namespace gsae {

namespace {

// Every frame says how much it holds, or that it does not know.
int64_t zstd_bytes(const MappedFile& file, int64_t most) {
  int64_t sum = 0;
  for (size_t at = 0; at < file.size() && sum < most;) {
    const std::byte* frame = file.data() + at;
    const unsigned long long content = ZSTD_getFrameContentSize(frame, file.size() - at);
    if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR) return most;
    sum += static_cast<int64_t>(std::min<unsigned long long>(content, static_cast<unsigned long long>(most)));
    if (sum >= most) break;  // before the frame's blocks are walked to find its end
    const size_t bytes = ZSTD_findFrameCompressedSize(frame, file.size() - at);
    if (ZSTD_isError(bytes)) return most;
    at += bytes;
  }
  return std::min(sum, most);
}

// The last four bytes say how much the last member holds, modulo 2^32. Text does not grow when it is compressed: less
// than the file itself means that there are other members.
int64_t gzip_bytes(const MappedFile& file, int64_t most) {
  const size_t n = file.size();
  if (n < 18 || n >= size_t{1} << 32) return most;
  uint32_t size = 0;
  for (size_t i = 0; i < 4; ++i) size |= std::to_integer<uint32_t>(file.data()[n - 4 + i]) << (8 * i);
  return size < n ? most : std::min<int64_t>(size, most);
}

}  // namespace

int64_t stored_text_bytes(const std::string& path, int64_t most) {
  if (data_kind(path) == DataKind::kStandardInput) return most;
  const MappedFile file(path);
  const auto size = static_cast<int64_t>(file.size());
  if (data_kind(path) == DataKind::kTokens) return std::min(2 * size, most);
  if (path.ends_with(".zst")) return zstd_bytes(file, most);
  if (path.ends_with(".gz")) return gzip_bytes(file, most);
  return std::min(size, most);
}

}  // namespace gsae
