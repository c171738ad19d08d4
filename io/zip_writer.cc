#include "io/zip_writer.h"

#include <zlib.h>

#include <bit>
#include <cstring>

#include "kernels/checkf.h"

namespace gsae {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint16_t kVersion = 20, kVersionZip64 = 45;
constexpr uint16_t kUtf8Names = 1 << 11;
constexpr uint16_t kTime = 0, kDate = 1 << 5 | 1;  // 1980-01-01 00:00, as numpy writes it
constexpr uint16_t kMade = 3 << 8;                 // on Unix: the attributes below are a file's mode
constexpr uint32_t kMode = 0100644u << 16;
constexpr uint16_t kPadding = 0x4246;        // "FB"
constexpr uint32_t kElsewhere = 0xffffffff;  // the value is in the zip64 field

template <class... T> std::string pack(T... values) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
  return bytes;
}

}  // namespace

void ZipWriter::write(std::string_view bytes) {
  file_.write(bytes.data(), bytes.size());
  offset_ += bytes.size();
}

void ZipWriter::add(const std::string& name, std::initializer_list<std::string_view> pieces, uint64_t alignment) {
  CHECKF(alignment >= 1 && alignment <= 4096, "zip: alignment {}", alignment);
  CHECKF(!name.empty() && name.size() < 0x10000, "zip: a name of {} bytes", name.size());
  uint64_t size = 0;
  uLong crc = crc32_z(0, nullptr, 0);
  for (const std::string_view p : pieces) {
    if (p.empty()) continue;  // zlib takes a null pointer for a wish to start again
    crc = crc32_z(crc, reinterpret_cast<const Bytef*>(p.data()), p.size());
    size += p.size();
  }
  const auto sum = static_cast<uint32_t>(crc);
  const auto length = static_cast<uint16_t>(name.size());
  const uint64_t begin = offset_;

  // Both sizes go into the zip64 field together: in a local header neither may stand there alone.
  const bool large = size >= zip64_from_, far = begin >= zip64_from_;
  const uint32_t size32 = large ? kElsewhere : static_cast<uint32_t>(size);
  const std::string sizes = large ? pack(size, size) : "";
  const auto field = [](const std::string& content) {
    return content.empty() ? "" : pack(uint16_t{1}, static_cast<uint16_t>(content.size())) + content;
  };
  const auto common = [&](size_t extra) {  // what the local header and the directory share
    return pack(large || far ? kVersionZip64 : kVersion, kUtf8Names, uint16_t{0}, kTime, kDate, sum, size32, size32,
                length, static_cast<uint16_t>(extra));
  };

  std::string local = field(sizes);
  if (alignment > 1) {  // an extra field that nobody knows, as PyTorch pads
    constexpr uint64_t kHeader = 30, kField = 4;
    const uint64_t content = begin + kHeader + length + local.size() + kField;
    const std::string padding((alignment - content % alignment) % alignment, '\0');
    local += pack(kPadding, static_cast<uint16_t>(padding.size())) + padding;
  }
  write(pack(uint32_t{0x04034b50}) + common(local.size()) + name + local);
  for (const std::string_view p : pieces) write(p);

  const std::string extra = field(sizes + (far ? pack(begin) : ""));
  directory_ += pack(uint32_t{0x02014b50}, static_cast<uint16_t>(kMade | kVersionZip64)) + common(extra.size()) +
                pack(uint16_t{0}, uint16_t{0}, uint16_t{0}, kMode, far ? kElsewhere : static_cast<uint32_t>(begin)) +
                name + extra;
  ++members_;
}

void ZipWriter::finish() {
  const uint64_t begin = offset_, size = directory_.size();
  write(directory_);
  const bool zip64 = begin >= zip64_from_ || size >= zip64_from_ || members_ >= 0xffff;
  if (zip64) {
    const uint64_t end = offset_;
    write(pack(uint32_t{0x06064b50}, uint64_t{44}, static_cast<uint16_t>(kMade | kVersionZip64), kVersionZip64,
               uint32_t{0}, uint32_t{0}, members_, members_, size, begin));
    write(pack(uint32_t{0x07064b50}, uint32_t{0}, end, uint32_t{1}));
  }
  const uint16_t count = zip64 ? 0xffff : static_cast<uint16_t>(members_);
  write(pack(uint32_t{0x06054b50}, uint16_t{0}, uint16_t{0}, count, count,
             zip64 ? kElsewhere : static_cast<uint32_t>(size), zip64 ? kElsewhere : static_cast<uint32_t>(begin),
             uint16_t{0}));
}

}  // namespace gsae
