// Gemma Scope's params.npz, and ours, with config.json beside it. https://huggingface.co/google/gemma-scope
#include <fmt/format.h>

#include <cstring>
#include <filesystem>

#include "io/npz.h"
#include "io/zip_reader.h"
#include "sae/sae_format.h"

namespace gsae {

namespace {

namespace fs = std::filesystem;

std::vector<std::string> find(const std::string& dir) { return if_file(dir + "/params.npz"); }

bool takes(const std::string& file, std::string& path) {
  const std::string extension = fs::path(file).extension().string();
  if (extension != ".npz" && (extension == ".pt" || extension == ".pth" || !is_zip(file))) return false;
  path = file;
  return true;
}

SaeFile list(const std::string& path) {
  refuse_transcoder(path);
  SaeFile file{.path = path, .location = {}};
  std::vector<std::string> names;
  for (const NpzEntry& entry : list_npz(path)) {
    names.push_back(entry.name);
    if (entry.name != "W_enc") continue;
    check_w_enc(path, entry.header.shape);
    file.width = entry.header.shape[0], file.latents = entry.header.shape[1];
  }
  if (file.width == 0) miss_array(path, "W_enc", names);
  const SaeDescription s = read_sae_description(folder_of(path), file.latents);
  file.location = s.location, file.name = s.name, file.l0 = s.l0;
  return file;
}

LoadedSae load(const std::string& path) {
  refuse_transcoder(path);
  // What the headers say fits together, and only that is read: other arrays may be as large as they like.
  std::map<std::string, std::vector<int64_t>> shapes;
  std::vector<std::string> names;
  for (const NpzEntry& entry : list_npz(path)) {
    shapes[entry.name] = entry.header.shape;
    names.push_back(entry.name);
  }
  const auto get = [&](auto& arrays, const std::string& name) -> auto& {
    const auto it = arrays.find(name);
    if (it == arrays.end()) miss_array(path, name, names);
    return it->second;
  };
  LoadedSae sae = allocate_sae(path, get(shapes, "W_enc"));
  std::vector<std::string> wanted;
  size_t bytes = 0;
  for (const auto& [name, tensor] : members(sae.params)) {
    expect_shape(path, name, get(shapes, name), shape_of(tensor));
    wanted.push_back(name);
    bytes += tensor.bytes();
  }
  auto arrays = read_npz(path, bytes, wanted);
  for (const std::string& name : wanted)
    if (!arrays.contains(name)) throw Error(fmt::format("{}: {} is no array of f16, bf16, f32 or f64", path, name));
  for (const auto& [name, tensor] : members(sae.params)) {
    NpzArray& array = get(arrays, name);
    expect_shape(path, name, array.shape, shape_of(tensor));
    std::memcpy(tensor.data<float>(), array.values.data(), tensor.bytes());
    array = {};  // never the whole SAE twice
  }
  check_values(sae);
  sae.location = read_sae_description(folder_of(path), sae.params.latents()).location;
  return sae;
}

SaeDescription describe(const SaeFile& sae) { return read_sae_description(folder_of(sae.path), sae.latents); }

void write(const std::string& dir, const SaeParameters& params, const SaeDescription& description) {
  std::vector<NpzMember> arrays;
  for (const auto& [name, tensor] : members(params)) arrays.push_back({name, shape_of(tensor), tensor.data<float>()});
  write_npz(dir + "/params.npz", arrays);
  write_sae_description(dir, params, description);
}

}  // namespace

const SaeFormat kGemmaScope{.name = "gemma-scope",
                            .files = "params.npz",
                            .find = find,
                            .takes = takes,
                            .list = list,
                            .load = load,
                            .describe = describe,
                            .write = write};

}  // namespace gsae
