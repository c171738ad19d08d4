#include "tools/checkpoint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "io/json.h"
#include "io/output_file.h"
#include "kernels/checkf.h"
#include "kernels/memory.h"

namespace gsae {

namespace fs = std::filesystem;

namespace {

constexpr const char *kTensors = "tensors.safetensors", *kRecord = "record.json", *kManifest = "manifest.json";
constexpr const char *kUnfinished = ".writing-", *kRemoved = ".removing-";
constexpr size_t kMostJson = size_t{64} << 20;
constexpr size_t kStaging = size_t{16} << 20;  // bytes that come from a device at a time

struct Kind {
  DType dtype;
  const char* name;
};
constexpr Kind kKinds[] = {
    {DType::kF32, "F32"}, {DType::kBF16, "BF16"}, {DType::kF64, "F64"}, {DType::kI32, "I32"}, {DType::kI64, "I64"}};

std::string stored_dtype(DType dtype) {
  for (const Kind& kind : kKinds)
    if (kind.dtype == dtype) return kind.name;
  throw Error(fmt::format("no checkpoint holds tensors of {}", name(dtype)));
}

std::vector<int64_t> shape_of(Tensor t) { return {t.dim.begin(), t.dim.begin() + t.rank}; }

std::string hex(uint64_t value) { return fmt::format("{:016x}", value); }

class Hash {
 public:
  Hash() : state_(XXH3_createState()) {
    CHECK(state_ != nullptr, "out of memory");
    XXH3_64bits_reset(state_);
  }
  ~Hash() { XXH3_freeState(state_); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  void add(const void* data, size_t bytes) { XXH3_64bits_update(state_, data, bytes); }
  std::string value() const { return hex(XXH3_64bits_digest(state_)); }

 private:
  XXH3_state_t* state_;
};

void sync_folder(const std::string& path) {
  const int folder = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) throw Error(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  const int failed = fsync(folder) != 0 ? errno : 0;
  close(folder);
  // some file systems cannot sync folders
  if (failed && failed != EINVAL && failed != EROFS)
    throw Error(fmt::format("cannot sync {}: {}", path, std::strerror(failed)));
}

// (pass, step) of a checkpoint's name; nothing for other names.
std::optional<std::pair<int64_t, int64_t>> position_of(const std::string& name) {
  long long pass = 1, step = 0;
  int end = 0;
  const bool named = std::sscanf(name.c_str(), "step_%lld%n", &step, &end) == 1 ||
                     std::sscanf(name.c_str(), "pass_%lld_step_%lld%n", &pass, &step, &end) == 2;
  if (!named || static_cast<size_t>(end) != name.size()) return std::nullopt;
  return std::pair<int64_t, int64_t>(pass, step);
}

// Out of sight first: what has a checkpoint's name is whole, even if this is killed.
void discard(const std::string& folder, const std::string& name) {
  std::error_code error;
  const std::string hidden = folder + "/" + kRemoved + name;
  fs::remove_all(hidden, error);
  fs::rename(folder + "/" + name, hidden, error);
  fs::remove_all(hidden, error);
}

// One tensor's bytes, in pieces that a device hands over; staging: for all tensors.
void append(Context& ctx, SafetensorsWriter& file, Hash& hash, const std::string& name, Tensor t,
            std::vector<std::byte>& staging) {
  const auto put = [&](const void* data, size_t bytes) {
    file.append(name, data, bytes);
    hash.add(data, bytes);
  };
  if (t.device == Device::kCpu || t.size() == 0) return put(t.ptr, t.bytes());
  const Tensor flat = t.reshape({t.size()});
  const auto most = static_cast<int64_t>(kStaging / size_of(t.dtype));
  staging.resize(kStaging);
  for (int64_t begin = 0; begin < t.size(); begin += most) {
    const Tensor part = flat.rows(begin, std::min(begin + most, t.size()));
    Tensor host = part;
    host.ptr = staging.data(), host.device = Device::kCpu;
    copy(ctx, host, part);
    ctx.synchronize();
    put(staging.data(), part.bytes());
  }
}

}  // namespace

struct CheckpointWriter::Files {
  std::string path;  // where they are until they have their name
  std::optional<SafetensorsWriter> tensors;
  std::string record, manifest;

  explicit Files(std::string p) : path(std::move(p)) { fs::create_directories(path); }
  ~Files() {
    if (path.empty()) return;
    tensors.reset();
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

CheckpointWriter::~CheckpointWriter() {
  if (thread_.joinable()) thread_.join();
}

std::string CheckpointWriter::wait() {
  if (thread_.joinable()) thread_.join();
  return std::exchange(error_, {});
}

void CheckpointWriter::write(Context& ctx, const std::string& name, const NamedTensors& tensors,
                             const nlohmann::ordered_json& record) {
  CHECK(!thread_.joinable(), "a checkpoint is on its way");
  std::unique_ptr<Files> files;
  try {
    files = std::make_unique<Files>(fmt::format("{}/{}{}", folder_, kUnfinished, getpid()));
  } catch (const fs::filesystem_error& e) {
    throw Error(fmt::format("cannot create {}: {}", folder_, e.code().message()));
  }
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [tensor, t] : tensors) declared.push_back({tensor, stored_dtype(t.dtype), shape_of(t)});
  files->tensors.emplace(files->path + "/" + kTensors, declared);
  nlohmann::ordered_json hashes = nlohmann::ordered_json::object();
  std::vector<std::byte> staging;
  for (const auto& [tensor, t] : tensors) {
    Hash hash;
    append(ctx, *files->tensors, hash, tensor, t, staging);
    hashes[tensor] = {{"bytes", t.bytes()}, {"xxh3", hash.value()}};
  }
  // "replace": a path need not be UTF-8
  files->record = record.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  Hash hash;
  hash.add(files->record.data(), files->record.size());
  const nlohmann::ordered_json manifest = {{"format", kCheckpointFormat},
                                           {"version", GSAE_VERSION},
                                           {kRecord, {{"bytes", files->record.size()}, {"xxh3", hash.value()}}},
                                           {"tensors", hashes}};
  files->manifest = manifest.dump(1) + "\n";
  done_ = false;
  thread_ = std::thread([this, name, f = std::move(files)]() mutable {
    try {
      finish(std::move(f), name);
    } catch (const std::exception& e) {
      error_ = e.what();
    }
    done_ = true;
  });
}

void CheckpointWriter::finish(std::unique_ptr<Files> files, const std::string& name) {
  files->tensors->close();
  write_file(files->path + "/" + kRecord, files->record);
  write_file(files->path + "/" + kManifest, files->manifest);
  sync_folder(files->path);
  const std::string path = folder_ + "/" + name;
  std::error_code error;
  discard(folder_, name);  // of the same step: a run that went back to the one before has come here again
  fs::rename(files->path, path, error);
  if (error) throw Error(fmt::format("cannot rename {} to {}: {}", files->path, path, error.message()));
  files->path.clear();
  sync_folder(folder_);
  sync_folder(fs::path(folder_).parent_path());  // folder_ itself may be new
  const std::vector<std::string> all = list_checkpoints(folder_);
  for (size_t i = static_cast<size_t>(keep_); i < all.size(); ++i) discard(folder_, all[i]);
}

std::vector<std::string> list_checkpoints(const std::string& folder) {
  std::vector<std::pair<std::pair<int64_t, int64_t>, std::string>> found;
  std::error_code error;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error))
    if (const std::string name = i->path().filename().string(); const auto at = position_of(name))
      found.emplace_back(*at, name);
  std::sort(found.rbegin(), found.rend());
  std::vector<std::string> names;
  for (auto& [at, name] : found) names.push_back(std::move(name));
  return names;
}

void remove_checkpoints_after(const std::string& path) {
  const fs::path at(path);
  for (const std::string& name : list_checkpoints(at.parent_path().string())) {
    if (name == at.filename()) return;
    discard(at.parent_path().string(), name);
  }
}

void remove_unfinished(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> left;
  for (fs::directory_iterator i(folder, error), end; !error && i != end; i.increment(error))
    if (const std::string name = i->path().filename().string();
        name.starts_with(kUnfinished) || name.starts_with(kRemoved))
      left.push_back(i->path());
  for (const fs::path& path : left) fs::remove_all(path, error);
}

std::string checkpoint_name(int64_t pass, int64_t passes, int64_t step) {
  return passes == 1 && pass == 1 ? fmt::format("step_{}", step) : fmt::format("pass_{}_step_{}", pass, step);
}

Checkpoint::Checkpoint(const std::string& path) : path_(path) {
  const std::string manifest_path = path + "/" + kManifest;
  const nlohmann::json manifest = read_json(manifest_path, kMostJson);
  try {
    if (const nlohmann::json& format = manifest.at("format"); format != kCheckpointFormat)
      throw Error(fmt::format("{}: is of format {:.40}, and this gemma_sae {} reads format {}", path, format.dump(),
                              GSAE_VERSION, kCheckpointFormat));
    const std::string record = read_file(path + "/" + kRecord, kMostJson);
    Hash hash;
    hash.add(record.data(), record.size());
    if (hash.value() != manifest.at(kRecord).at("xxh3"))
      throw Error(fmt::format("{}/{}: is damaged: its checksum is not the manifest's", path, kRecord));
    record_ = parse_json(path + "/" + kRecord, record);
    tensors_ = std::make_unique<SafetensorsFile>(path + "/" + kTensors);
    const nlohmann::json& hashes = manifest.at("tensors");
    if (!hashes.is_object() || hashes.size() != tensors_->tensors().size())
      throw Error(
          fmt::format("{}/{}: is damaged: it does not hold the tensors that the manifest lists", path, kTensors));
    for (const auto& [name, t] : tensors_->tensors()) {
      const nlohmann::json& listed = hashes.at(name);
      Hash of_tensor;
      of_tensor.add(t.data, t.bytes);
      if (listed.at("bytes") != t.bytes || listed.at("xxh3") != of_tensor.value())
        throw Error(fmt::format("{}/{}: is damaged: the checksum of {} is not the manifest's", path, kTensors, name));
    }
  } catch (const nlohmann::json::exception& e) {
    throw Error(fmt::format("{}: is damaged: {}", manifest_path, e.what()));
  }
}

void Checkpoint::load(Context& ctx, const std::string& name, Tensor dst) const {
  const StoredTensor& t = tensors_->get(name);
  if (t.dtype != stored_dtype(dst.dtype) || t.shape != shape_of(dst))
    throw Error(
        fmt::format("{}: {} is {}[{}], and this run has {}", path_, name, t.dtype, fmt::join(t.shape, ", "), dst));
  if (t.bytes == 0) return;
  Tensor host = dst;
  host.ptr = const_cast<std::byte*>(t.data), host.device = Device::kCpu;
  copy(ctx, dst, host);
  ctx.synchronize();  // the file may be closed then
}

std::vector<int32_t> Checkpoint::integers(const std::string& name) const {
  const StoredTensor& t = tensors_->get(name);
  if (t.dtype != "I32" || t.shape.size() != 1)
    throw Error(fmt::format("{}: {} is {} of rank {}, not I32 of rank 1", path_, name, t.dtype, t.shape.size()));
  std::vector<int32_t> values(t.bytes / sizeof(int32_t));
  if (!values.empty()) std::memcpy(values.data(), t.data, t.bytes);
  return values;
}

}  // namespace gsae
