#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "io/safetensors.h"
#include "kernels/context.h"
#include "kernels/tensor.h"

namespace gsae {

// Checkpoints are folders below one folder: RUN/checkpoints/step_1200, or pass_2_step_1200 of a run of several passes
// or behind its only one.
// Each holds tensors.safetensors, record.json (what else there is to know; tools/training_state.h) and manifest.json:
// the format's version, the bytes and XXH3-64 of the record, and the bytes and XXH3-64 of each tensor. A folder appears
// under its name by one rename, with everything in it synced: what is there is whole, unless the disk damaged it.
constexpr int kCheckpointFormat = 3;

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

// Writes checkpoints, one at a time, and keeps the last `keep` of them.
class CheckpointWriter {
 public:
  CheckpointWriter(std::string folder, int64_t keep) : folder_(std::move(folder)), keep_(keep) {}
  ~CheckpointWriter();  // waits; what went wrong then is lost
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // Returns once the tensors have been handed to the system, which holds them in its page cache: they may change from
  // then on. Syncing to the disk, renaming and removing older ones happen on another thread. An Error leaves nothing of
  // this checkpoint, and the earlier ones as they were; none may be on its way.
  void write(Context& ctx, const std::string& name, const NamedTensors& tensors, const nlohmann::ordered_json& record);

  bool writing() const { return thread_.joinable() && !done_; }
  // The error of the one that was on its way, or nothing: waits for it.
  std::string wait();

 private:
  struct Files;
  void finish(std::unique_ptr<Files> files, const std::string& name);

  std::string folder_;
  int64_t keep_;
  std::thread thread_;
  std::atomic<bool> done_ = false;
  std::string error_;  // of thread_, once done_
};

// A checkpoint, checked whole: an Error names the file and what is wrong with it.
class Checkpoint {
 public:
  explicit Checkpoint(const std::string& path);
  const std::string& path() const { return path_; }
  const nlohmann::json& record() const { return record_; }
  // The tensor of that name into dst; an Error unless dtype and shape are dst's.
  void load(Context& ctx, const std::string& name, Tensor dst) const;
  std::vector<int32_t> integers(const std::string& name) const;  // an I32 tensor of rank 1

 private:
  std::string path_;
  nlohmann::json record_;
  std::unique_ptr<SafetensorsFile> tensors_;
};

// The names of the checkpoints in `folder`, newest first; none if there is no such folder.
std::vector<std::string> list_checkpoints(const std::string& folder);
// Removes those newer than the checkpoint of this path, which a run goes on from: they could not be used, and it will
// come to where they were again.
void remove_checkpoints_after(const std::string& path);
// Removes what processes that were killed have left half-written or half-removed there.
void remove_unfinished(const std::string& folder);

// pass_2_step_1200, or step_1200 of the pass of a run that has only one.
std::string checkpoint_name(int64_t pass, int64_t passes, int64_t step);

}  // namespace gsae
