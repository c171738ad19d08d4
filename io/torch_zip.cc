#include "io/torch_zip.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "io/output_file.h"
#include "io/zip_writer.h"
#include "kernels/checkf.h"

namespace gsae {
namespace {

constexpr uint64_t kLargestPickle = 1 << 20;  // of a state dict with thousands of tensors
constexpr uint64_t kAlignment = 64;

std::string read_text(ZipArchive& archive, int64_t member, uint64_t largest) {
  ZipMember m(archive, member);
  if (m.size() > largest) m.refuse(fmt::format("it has {} bytes, more than the {} expected", m.size(), largest));
  std::string text(m.size(), '\0');
  m.read_all(text.data(), text.size());
  m.expect_end();
  return text;
}

// Strides of C order; those of dimensions of one element say nothing.
bool in_order(const std::vector<int64_t>& shape, const std::vector<int64_t>& strides) {
  int64_t next = 1;
  for (size_t i = shape.size(); i-- > 0; next *= shape[i])
    if (shape[i] != 1 && strides[i] != next) return false;
  return true;
}
bool in_order(const PickledTensor& t) { return in_order(t.shape, t.strides); }
bool is_transposed(const PickledTensor& t) {
  return t.shape.size() == 2 && in_order({t.shape[1], t.shape[0]}, {t.strides[1], t.strides[0]});
}

}  // namespace

TorchFile::TorchFile(const std::string& path) : archive_(path, "a PyTorch file") {
  const auto refuse = [&](const std::string& why) {
    throw Error(
        fmt::format("{}: not a usable PyTorch file: {}; download it, or save it with torch.save again", path, why));
  };
  std::map<std::string, int64_t> members;
  std::string folder;
  for (int64_t i = 0; i < archive_.members(); ++i) {
    const std::string name = archive_.name(i);
    if (!members.emplace(name, i).second) refuse(fmt::format("it has two members {:.80}", name));
    constexpr std::string_view kPickle = "/data.pkl";
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    if (!folder.empty()) refuse("it has two data.pkl");
    folder = name.substr(0, name.size() - kPickle.size() + 1);
  }
  if (folder.empty()) refuse("it has no data.pkl");
  if (const auto it = members.find(folder + "byteorder"); it != members.end())
    if (const std::string order = read_text(archive_, it->second, 64); order != "little")
      refuse(fmt::format("its byte order is '{}', not little", order));

  const std::string pickle = read_text(archive_, members.at(folder + "data.pkl"), kLargestPickle);
  for (PickledTensor& t : parse_state_dict(path, pickle)) {
    const auto it = members.find(folder + "data/" + t.storage);
    if (it == members.end()) refuse(fmt::format("the storage {:.40} of '{:.80}' is not there", t.storage, t.name));
    const ZipMember member(archive_, it->second);
    if (member.size() % bytes_of(t.type) != 0 || member.size() / bytes_of(t.type) != static_cast<uint64_t>(t.elements))
      member.refuse(fmt::format("it has {} bytes, but {} elements of {} bytes are claimed", member.size(), t.elements,
                                bytes_of(t.type)));
    if (!in_order(t) && !is_transposed(t))  // so that a tensor has no more elements than its storage
      refuse(fmt::format("'{:.80}' is a view, with strides ({}) of shape ({}); save its .contiguous()", t.name,
                         fmt::join(t.strides, ", "), fmt::join(t.shape, ", ")));
    storages_[t.storage] = it->second;
    const std::string name = t.name;
    if (!tensors_.emplace(name, std::move(t)).second) refuse(fmt::format("it has two tensors '{:.80}'", name));
  }
}

void TorchFile::read(float* out, const PickledTensor& t) {
  const auto n = static_cast<size_t>(t.size());
  if (n == 0) return;
  ZipMember member(archive_, storages_.at(t.storage));
  member.skip(static_cast<uint64_t>(t.offset) * bytes_of(t.type));
  if (in_order(t)) read_floats(out, n, member, t.type);
  else read_columns(out, static_cast<size_t>(t.shape[0]), static_cast<size_t>(t.shape[1]), member, t.type);
  // The checksum is that of the whole storage.
  member.skip(static_cast<uint64_t>(t.elements - t.offset - static_cast<int64_t>(n)) * bytes_of(t.type));
  member.expect_end();
}

void write_torch(const std::string& path, const std::vector<TorchMember>& tensors) {
  std::vector<PickledShape> shapes;
  for (const TorchMember& t : tensors) shapes.push_back({t.name, t.shape});
  OutputFile file(path);
  ZipWriter zip(file);
  const std::string folder = std::filesystem::path(path).stem().string() + "/";
  zip.add(folder + "data.pkl", {pickle_state_dict(shapes)}, kAlignment);
  zip.add(folder + "byteorder", {"little"}, kAlignment);
  for (size_t i = 0; i < tensors.size(); ++i) {
    size_t bytes = sizeof(float);
    for (const int64_t dim : tensors[i].shape)
      CHECKF(dim >= 0 && !__builtin_mul_overflow(bytes, static_cast<size_t>(dim), &bytes),
             "{}: shape ({}) of '{}' overflows", path, fmt::join(tensors[i].shape, ", "), tensors[i].name);
    zip.add(fmt::format("{}data/{}", folder, i), {{reinterpret_cast<const char*>(tensors[i].data), bytes}}, kAlignment);
  }
  zip.add(folder + "version", {"3\n"}, kAlignment);
  zip.finish();
  file.commit();
}

}  // namespace gsae
