#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/given_options.h"

namespace gsae {

// Removes what a run that has finished does not need any more: its checkpoints, and what interrupted runs had left.
void remove_states(const std::string& run);

// The folder of a training run: run.json, config.json, train.jsonl, checkpoints, and the results below it. The
// constructor takes a folder that is new or empty, by creating train.jsonl in it: nothing is ever overwritten, two
// processes never write to one folder (train.jsonl is locked), and one that cannot be written to is found before the
// work. A run that ends before it has logged a line leaves nothing behind.
class RunFolder {
 public:
  explicit RunFolder(const std::string& path);
  // The folder of a run that is to go on, as whose train.jsonl the first log_bytes of it count. An Error if another
  // process is at it.
  RunFolder(const std::string& path, int64_t log_bytes);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  int64_t log_bytes() const { return log_bytes_; }
  // Has what train.jsonl holds survive a power cut: before a checkpoint counts on it. False: that cannot be had.
  bool sync_log();
  // Stays whatever happens from now on: there is something to go on from.
  void keep() { keep_ = true; }

  // An Error if the file system has less left than that and a little: before hours of work, not after.
  void require_space(int64_t result_bytes, int64_t checkpoint_bytes) const;

  void write_config(const nlohmann::ordered_json& config);
  // products.txt: which algorithm cuBLASLt chose for each product, a line each. False: it could not be written.
  bool write_products(const std::vector<std::string>& lines);
  // Says in run.json that the run has finished, and removes its states.
  void finish(const GivenOptions& given);

  // One line of train.jsonl, in the file when this returns. False: it could not be written (a full disk), which
  // must not end a run; nothing of it is in the file then, and it waits for the next call.
  bool log(const nlohmann::ordered_json& line);
  // Lines that are not in it after all: those that still wait, and those for which there was no room to wait.
  int64_t missing_lines() const;

 private:
  void open_log(int flags);
  bool write_waiting();

  std::string path_;
  std::vector<std::string> created_;  // folders that were not there before, outermost first
  int log_ = -1;                      // train.jsonl
  int64_t log_bytes_ = 0;             // whole lines in it
  bool torn_ = false;                 // there may be half a line behind them
  std::string waiting_;               // whole lines
  int64_t dropped_ = 0;               // lines
  bool keep_ = false;
};

}  // namespace gsae
