#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace gsae {

// The folder of a training run: config.json, train.jsonl, and the results below it. The constructor takes a folder that
// is new or empty, by creating train.jsonl in it: nothing is ever overwritten, two runs never share a folder, and one
// that cannot be written to is found before the work. A run that ends before it has logged a line leaves nothing
// behind.
class RunFolder {
 public:
  explicit RunFolder(const std::string& path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }

  // An Error if the file system has less than `bytes` left: before hours of work, not after.
  void require_space(int64_t bytes) const;

  void write_config(const nlohmann::ordered_json& config);
  // products.txt: which algorithm cuBLASLt chose for each product, a line each. False: it could not be written.
  bool write_products(const std::vector<std::string>& lines);
  // One line of train.jsonl, in the file when this returns. False: it could not be written (a full disk), which
  // must not end a run; nothing of it is in the file then.
  bool log(const nlohmann::ordered_json& line);

 private:
  std::string path_;
  std::vector<std::string> created_;  // folders that were not there before, outermost first
  int log_ = -1;                      // train.jsonl
  int64_t log_bytes_ = 0;             // whole lines in it
  bool keep_ = false;
};

}  // namespace gsae
