#include "io/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string_view>

#include "io/half.h"
#include "io/json.h"
#include "io/output_file.h"
#include "kernels/bf16.h"
#include "kernels/checkf.h"
#include "kernels/parallel.h"

namespace gsae {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is little-endian and is used as it lies");

// The reference implementation's own bound on the header.
constexpr uint64_t kMaxHeader = 100'000'000;

// Bits of one element; 0: unknown. F4 and F6 pack several elements into a byte.
int bits_of(std::string_view dtype) {
  static constexpr std::array<std::pair<std::string_view, int>, 22> kBits{
      {{"F64", 64}, {"F32", 32},    {"F16", 16},    {"BF16", 16},      {"I64", 64}, {"I32", 32},
       {"I16", 16}, {"I8", 8},      {"U64", 64},    {"U32", 32},       {"U16", 16}, {"U8", 8},
       {"BOOL", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8},    {"C64", 64}, {"F8_E4M3FNUZ", 8},
       {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E5M2FNUZ", 8}}};
  for (const auto& [name, bits] : kBits)
    if (name == dtype) return bits;
  return 0;
}

// The bytes of a tensor, or a reason why there can be no such tensor.
struct Extent {
  uint64_t bytes = 0;
  std::string problem;
};
Extent extent_of(const std::string& dtype, const std::vector<int64_t>& shape) {
  const int bits = bits_of(dtype);
  if (bits == 0) return {0, fmt::format("unknown dtype '{}'", dtype)};
  int64_t n = 1;
  bool overflow = false;
  for (const int64_t dim : shape) {
    if (dim < 0) return {0, fmt::format("negative size in shape [{}]", fmt::join(shape, ", "))};
    // Signed, and at every step: size() multiplies the same way, so an overflow that a later zero
    // would hide is refused too.
    overflow |= __builtin_mul_overflow(n, dim, &n);
  }
  overflow |= __builtin_mul_overflow(n, bits, &n);
  if (overflow) return {0, fmt::format("shape [{}] overflows", fmt::join(shape, ", "))};
  if (n % 8) return {0, fmt::format("shape [{}] of {} does not fill whole bytes", fmt::join(shape, ", "), dtype)};
  return {static_cast<uint64_t>(n) / 8, ""};
}

[[noreturn]] void refuse(const std::string& path, const std::string& reason) {
  throw Error(fmt::format("{}: not a usable safetensors file: {}; download or write it again", path, reason));
}

uint64_t natural(const std::string& path, const std::string& tensor, const char* field, const nlohmann::json& value) {
  if (!value.is_number_unsigned())
    refuse(path, fmt::format("tensor '{}': {} holds what is not a natural number", tensor, field));
  return value.get<uint64_t>();
}

const nlohmann::json& member(const std::string& path, const std::string& tensor, const nlohmann::json& entry,
                             const char* field, nlohmann::json::value_t type) {
  const auto it = entry.find(field);
  if (it == entry.end() || it->type() != type)
    refuse(path, fmt::format("tensor '{}' has no valid '{}'", tensor, field));
  return *it;
}

StoredTensor parse_tensor(const std::string& path, const std::string& name, const nlohmann::json& entry,
                          const std::byte* data, uint64_t available) {
  using Type = nlohmann::json::value_t;
  if (!entry.is_object()) refuse(path, fmt::format("tensor '{}' is not described by an object", name));
  StoredTensor t;
  t.name = name;
  t.dtype = member(path, name, entry, "dtype", Type::string).get<std::string>();
  for (const auto& dim : member(path, name, entry, "shape", Type::array)) {
    const uint64_t n = natural(path, name, "shape", dim);
    if (n > uint64_t{INT64_MAX}) refuse(path, fmt::format("tensor '{}': shape holds {}", name, n));
    t.shape.push_back(static_cast<int64_t>(n));
  }
  const auto& offsets = member(path, name, entry, "data_offsets", Type::array);
  if (offsets.size() != 2) refuse(path, fmt::format("tensor '{}' needs two data_offsets", name));
  const uint64_t begin = natural(path, name, "data_offsets", offsets[0]);
  const uint64_t end = natural(path, name, "data_offsets", offsets[1]);
  if (begin > end || end > available)
    refuse(path, fmt::format("tensor '{}' lies at bytes [{}, {}) of {}: the file is cut short, or its header is wrong",
                             name, begin, end, available));
  const Extent extent = extent_of(t.dtype, t.shape);
  if (!extent.problem.empty()) refuse(path, fmt::format("tensor '{}': {}", name, extent.problem));
  if (extent.bytes != end - begin)
    refuse(path, fmt::format("tensor '{}' has {} bytes, but {}[{}] needs {}", name, end - begin, t.dtype,
                             fmt::join(t.shape, ", "), extent.bytes));
  t.data = data + begin;
  t.bytes = end - begin;
  return t;
}

// The tensors in the order of their bytes must follow each other from the first byte to the last,
// as the reference implementation demands: an overlap or a hole is a header that lies.
void check_layout(const std::string& path, const std::map<std::string, StoredTensor>& tensors, const std::byte* data,
                  uint64_t available) {
  std::vector<const StoredTensor*> order;
  for (const auto& [name, t] : tensors) order.push_back(&t);
  std::sort(order.begin(), order.end(), [](const StoredTensor* a, const StoredTensor* b) {
    return std::pair(a->data, a->bytes) < std::pair(b->data, b->bytes);
  });
  const std::byte* next = data;
  for (const StoredTensor* t : order) {
    if (t->data < next) refuse(path, fmt::format("tensor '{}' overlaps another", t->name));
    if (t->data > next) refuse(path, fmt::format("{} unused bytes before tensor '{}'", t->data - next, t->name));
    next = t->data + t->bytes;
  }
  if (next != data + available) refuse(path, fmt::format("{} unused bytes at its end", data + available - next));
}

template <class T> T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);  // the file may lay elements anywhere
  return v;
}

// widen(bits) for every element, in parallel.
template <class Stored, class F> void convert_each(float* out, const std::byte* p, int64_t n, F widen) {
  parallel_for(n, int64_t{1} << 18, [&](int64_t begin, int64_t end) {
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = widen(load<Stored>(p + i * int64_t{sizeof(Stored)}));
  });
}

}  // namespace

int64_t StoredTensor::size() const {
  int64_t n = 1;
  for (const int64_t dim : shape) n *= dim;
  return n;
}

SafetensorsFile::SafetensorsFile(const std::string& path) : file_(path) {
  if (file_.size() < 8) refuse(path, fmt::format("it has {} bytes", file_.size()));
  const auto length = load<uint64_t>(file_.data());
  if (length > kMaxHeader) refuse(path, fmt::format("its header claims {} bytes", length));
  if (length > file_.size() - 8)
    refuse(path, fmt::format("its header claims {} bytes, but the file has {}", length, file_.size()));
  const std::string_view text(reinterpret_cast<const char*>(file_.data()) + 8, length);
  if (!text.starts_with('{')) refuse(path, "its header is not a JSON object");
  const nlohmann::json header = parse_json(path + ": not a usable safetensors file: header", text, 4);

  const std::byte* data = file_.data() + 8 + length;
  const uint64_t available = file_.size() - 8 - length;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      tensors_.emplace(name, parse_tensor(path, name, entry, data, available));
      continue;
    }
    if (!entry.is_object()) refuse(path, "its __metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) refuse(path, fmt::format("its __metadata__ '{}' is not a string", key));
      metadata_.emplace(key, value.get<std::string>());
    }
  }
  check_layout(path, tensors_, data, available);
}

const std::string& SafetensorsFile::path() const { return file_.path(); }

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

const StoredTensor& SafetensorsFile::get(const std::string& name) const {
  if (const StoredTensor* t = find(name)) return *t;
  std::string there;
  size_t listed = 0;
  for (const auto& [other, t] : tensors_) {
    if (listed == 12) {
      there += fmt::format(", and {} more", tensors_.size() - listed);
      break;
    }
    there += fmt::format("{}{}", listed++ ? ", " : "", other);
  }
  throw Error(fmt::format("{}: no tensor '{}'; it holds {}", path(), name, there.empty() ? "none" : there));
}

Tensor mapped_view(const StoredTensor& t) {
  DType dtype;
  if (t.dtype == "F32") dtype = DType::kF32;
  else if (t.dtype == "BF16") dtype = DType::kBF16;
  else if (t.dtype == "I32") dtype = DType::kI32;
  else if (t.dtype == "I64") dtype = DType::kI64;
  else return {};
  if (t.shape.empty() || t.shape.size() > Tensor::kMaxRank) return {};
  if (reinterpret_cast<uintptr_t>(t.data) % size_of(dtype) != 0) return {};
  Tensor v{.ptr = const_cast<std::byte*>(t.data), .dtype = dtype, .rank = static_cast<int>(t.shape.size())};
  std::copy(t.shape.begin(), t.shape.end(), v.dim.begin());
  return v;
}

void to_f32(float* out, const StoredTensor& t) {
  const int64_t n = t.size();
  if (n == 0) return;
  if (t.dtype == "F32") std::memcpy(out, t.data, t.bytes);
  else if (t.dtype == "BF16") convert_each<uint16_t>(out, t.data, n, [](uint16_t b) { return to_float(BF16{b}); });
  else if (t.dtype == "F16") convert_each<uint16_t>(out, t.data, n, half_to_float);
  else if (t.dtype == "F64") convert_each<double>(out, t.data, n, [](double v) { return static_cast<float>(v); });
  else throw Error(fmt::format("tensor '{}' is {}; expected F32, F16, BF16 or F64", t.name, t.dtype));
}

std::vector<float> to_f32(const StoredTensor& t) {
  if (!t.dtype.starts_with("F") && !t.dtype.starts_with("BF")) to_f32(nullptr, t);
  std::vector<float> v(static_cast<size_t>(t.size()));
  to_f32(v.data(), t);
  return v;
}

struct SafetensorsWriter::State {
  struct Part {
    size_t begin = 0, end = 0, next = 0;  // bytes of the file; next: where the next piece goes
  };
  explicit State(const std::string& path) : path(path), file(path) {}
  std::string path;
  OutputFile file;
  std::map<std::string, Part> parts;
  bool closed = false;
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : state_(std::make_unique<State>(path)) {
  // Large elements first, so that every tensor is aligned to its element, as the reference
  // implementation lays them; the header begins the data at a multiple of 64.
  std::vector<const Declared*> order;
  for (const Declared& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(),
                   [](const Declared* a, const Declared* b) { return bits_of(a->dtype) > bits_of(b->dtype); });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t total = 0;
  for (const Declared* t : order) {
    CHECKF(t->name != "__metadata__" && !header.contains(t->name), "{}: tensor '{}' declared twice", path, t->name);
    const Extent extent = extent_of(t->dtype, t->shape);
    CHECKF(extent.problem.empty(), "{}: tensor '{}': {}", path, t->name, extent.problem);
    const uint64_t begin = total;
    CHECKF(!__builtin_add_overflow(total, extent.bytes, &total) && total < uint64_t{INT64_MAX} / 2,
           "{}: too large at tensor '{}'", path, t->name);
    header[t->name] = {{"dtype", t->dtype}, {"shape", t->shape}, {"data_offsets", {begin, total}}};
    state_->parts[t->name] = {begin, total, begin};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: a name or the metadata is not UTF-8: {}", path, e.what()));
  }
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  CHECKF(text.size() <= kMaxHeader, "{}: a header of {} bytes is too large for the format", path, text.size());
  const uint64_t length = text.size();
  for (auto& [name, part] : state_->parts) part.begin += 8 + length, part.end += 8 + length, part.next += 8 + length;
  state_->file.resize(8 + length + total);
  state_->file.write(&length, sizeof length);
  state_->file.write(text.data(), text.size());
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::append(const std::string& name, const void* data, size_t bytes) {
  CHECKF(!state_->closed, "{}: append after close", state_->path);
  const auto it = state_->parts.find(name);
  CHECKF(it != state_->parts.end(), "{}: tensor '{}' was not declared", state_->path, name);
  auto& part = it->second;
  CHECKF(bytes <= part.end - part.next, "{}: tensor '{}' has room for {} more bytes, not {}", state_->path, name,
         part.end - part.next, bytes);
  state_->file.write_at(part.next, data, bytes);
  part.next += bytes;
}

void SafetensorsWriter::close() {
  for (const auto& [name, part] : state_->parts)
    CHECKF(part.next == part.end, "{}: tensor '{}' has {} of its {} bytes", state_->path, name, part.next - part.begin,
           part.end - part.begin);
  state_->file.commit();
  state_->closed = true;
}

}  // namespace gsae
