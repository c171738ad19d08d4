#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace gsae {

// The folder of a training run: config.json, train.jsonl, and the results below it. The constructor creates the
// folder and refuses one that already holds a run, so that nothing is ever overwritten.
class RunFolder {
 public:
  explicit RunFolder(const std::string& path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }

  // An Error if the file system has less than `bytes` left: before hours of work, not after.
  void require_space(int64_t bytes) const;

  void write_config(const nlohmann::json& config);
  // One line of train.jsonl, in the file when this returns. False: it could not be written (a full disk), which
  // must not end a run.
  bool log(const nlohmann::json& line);

 private:
  std::string path_;
  std::FILE* log_ = nullptr;
};

}  // namespace gsae
