#include "tools/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/output_file.h"
#include "kernels/check.h"
#include "tools/checkpoint.h"
#include "tools/run_file.h"

namespace gsae {

namespace fs = std::filesystem;

namespace {

// Whether a run there has not finished, and what is to be said of it.
bool can_go_on(const std::string& path, std::string& how) {
  try {
    if (read_run_file(path).finished) return false;
  } catch (const Error&) {
    return false;
  }
  const std::vector<std::string> checkpoints = list_checkpoints(path + "/checkpoints");
  how = fmt::format(
      " ({}); go on with: gemma_sae train --resume {}",
      checkpoints.empty() ? "stopped before its first checkpoint" : "its last checkpoint: " + checkpoints[0], path);
  return true;
}

void refuse_what_is_there(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) return;
  if (error) throw Error(fmt::format("--out {}: {}", path, error.message()));
  if (status.type() != fs::file_type::directory)
    throw Error(fmt::format("--out {}: is a file; a run needs a folder of its own", path));
  if (std::string how; fs::exists(fs::path(path) / "run.json", error) && can_go_on(path, how))
    throw Error(fmt::format("--out {}: holds a run that has not finished{}; choose another folder, or remove it first",
                            path, how));
  for (const char* file : {"config.json", "train.jsonl"})
    if (fs::exists(fs::path(path) / file, error))
      throw Error(
          fmt::format("--out {}: holds a run already ({}); choose another folder, or remove it first", path, file));
  const fs::directory_iterator entries(path, error);
  if (error) throw Error(fmt::format("--out {}: cannot be read: {}", path, error.message()));
  if (entries != fs::directory_iterator())
    throw Error(fmt::format("--out {}: is not empty (there is {}); choose a new folder", path,
                            entries->path().filename().string()));
}

}  // namespace

RunFolder::RunFolder(const std::string& path) : path_(path) {
  refuse_what_is_there(path);
  std::error_code error;
  for (fs::path p = path; !p.empty() && !fs::exists(p, error); p = p.parent_path())
    created_.insert(created_.begin(), p.string());
  fs::create_directories(path, error);
  if (error) throw Error(fmt::format("--out {}: cannot create the folder: {}", path, error.message()));
  open_log(O_CREAT | O_EXCL);
}

RunFolder::RunFolder(const std::string& path, int64_t log_bytes) : path_(path), log_bytes_(log_bytes), keep_(true) {
  open_log(O_CREAT);
  // what was logged behind the checkpoint will be logged again
  if (lseek(log_, 0, SEEK_END) < log_bytes)
    throw Error(fmt::format("{}/train.jsonl is shorter than the {} bytes that it just had", path, log_bytes));
  if (ftruncate(log_, log_bytes) != 0)
    throw Error(fmt::format("cannot write {}/train.jsonl: {}", path, std::strerror(errno)));
  remove_unfinished(checkpoints());
}

void RunFolder::open_log(int flags) {
  const std::string name = path_ + "/train.jsonl";
  log_ = open(name.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | flags, 0666);
  if (log_ < 0)
    throw Error(
        fmt::format("cannot create {}: {}; choose a folder that can be written to", name, std::strerror(errno)));
  if (flock(log_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close(log_);
    throw Error(fmt::format("{}: another gemma_sae is training there; wait until it has ended", path_));
  }
}

RunFolder::~RunFolder() {
  close(log_);
  if (keep_) return;
  std::error_code ignored;
  for (const char* file : {"run.json", "config.json", "train.jsonl"}) fs::remove(fs::path(path_) / file, ignored);
  for (auto folder = created_.rbegin(); folder != created_.rend(); ++folder) fs::remove(*folder, ignored);  // if empty
}

void RunFolder::require_space(int64_t results, int64_t checkpoints) const {
  constexpr int64_t kSpare = int64_t{64} << 20;  // the log, descriptions, other processes
  std::error_code error;
  const fs::space_info space = fs::space(path_, error);
  if (error || space.available >= static_cast<uintmax_t>(results + checkpoints + kSpare)) return;
  const std::string fewer =
      checkpoints > 0 ? fmt::format(" and its checkpoints up to {:.1f} MB", double(checkpoints) / 1e6) : "";
  throw Error(
      fmt::format("--out {}: the result needs {:.1f} MB{}, but only {:.1f} MB are free there; free some space, "
                  "choose another folder{}",
                  path_, double(results + kSpare) / 1e6, fewer, double(space.available) / 1e6,
                  checkpoints > 0 ? ", or give --keep 1, a smaller --buffer or --checkpoint-every 0" : ""));
}

void RunFolder::write_config(const nlohmann::ordered_json& config) {
  // "replace": a path need not be UTF-8
  write_file(path_ + "/config.json", config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

void remove_states(const std::string& run) {
  std::error_code ignored;
  for (const char* left : {"checkpoints", "interrupted"}) fs::remove_all(fs::path(run) / left, ignored);
}

void RunFolder::finish(const GivenOptions& given) {
  write_waiting();
  write_run_file(path_, {given, true});
  remove_states(path_);
}

bool RunFolder::write_products(const std::vector<std::string>& lines) {
  try {
    write_file(path_ + "/products.txt", fmt::format("{}\n", fmt::join(lines, "\n")));
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool RunFolder::log(const nlohmann::ordered_json& line) {
  keep_ = true;
  constexpr size_t kMostWaiting = size_t{16} << 20;
  if (waiting_.size() < kMostWaiting) waiting_ += line.dump() + "\n";
  else ++dropped_;
  return write_waiting();
}

bool RunFolder::write_waiting() {
  const auto cut = [&] { return torn_ = torn_ && ftruncate(log_, log_bytes_) != 0; };
  if (cut()) return false;  // half a line would spoil the next one
  ssize_t n = 0;
  do n = write(log_, waiting_.data(), waiting_.size());
  while (n < 0 && errno == EINTR);
  if (n > 0) {
    const size_t lines = waiting_.rfind('\n', static_cast<size_t>(n) - 1) + 1;  // npos + 1: none
    log_bytes_ += static_cast<int64_t>(lines);
    waiting_.erase(0, lines);
    torn_ = lines != static_cast<size_t>(n);
  }
  cut();
  return waiting_.empty();
}

int64_t RunFolder::missing_lines() const { return dropped_ + std::count(waiting_.begin(), waiting_.end(), '\n'); }

bool RunFolder::sync_log() {
  write_waiting();  // what comes behind the checkpoint is another's
  return fsync(log_) == 0 || errno == EINVAL || errno == EROFS;
}

}  // namespace gsae
