// A disk that fails under a training run, at each of the calls that write to its folder in turn: nothing crashes, what
// went wrong is said, the checkpoints are whole, and the run ends in the bytes of one that nothing happened to, by
// itself or with --resume. GSAE_EVERY_FAULT=1 tries every call (tests/faults/io_errors.sh); else one of some kinds.
#include <gtest/gtest.h>

#include <fstream>
#include <optional>

#include "tests/faults.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

struct Call {
  int64_t number;
  std::string kind;  // "write params.npz": the file's name without what differs from run to run
};

std::string kind_of(const std::string& call, const std::string& path) {
  std::string name = fs::path(path).filename().string();
  if (const size_t at = name.find(".tmp-"); at != name.npos) name.resize(at);
  for (const char* prefix : {"step_", "pass_", ".writing-", "average_l0_"})
    if (name.starts_with(prefix)) name = prefix;
  return call + " " + name;
}

std::vector<Call> read_calls(const std::string& path) {
  std::vector<Call> calls;
  std::ifstream in(path);
  std::string call, file;
  for (int64_t number; in >> number >> call && std::getline(in, file);) calls.push_back({number, kind_of(call, file)});
  return calls;
}

// Lines that only a run with faults has.
void drop_errors(std::vector<nlohmann::json>& log) {
  std::erase_if(log, [](const auto& line) { return line.contains("checkpoint_error"); });
}

struct Disk {
  const char* name;
  int error;
  bool for_good;  // it stays like this until the process has ended
};

struct IoFaults : testing::Test {
  void SetUp() override {
    require_faults();
    if (IsSkipped()) return;
    write_bytes(data, documents());
    expect_outcome(run_binary(words("whole"), faulty(dir / "whole", {{"GSAE_FAULT_LOG", dir / "calls"}})), 0);
    whole.emplace(dir / "whole");
    calls = read_calls(dir / "calls");
    ASSERT_EQ(whole->params.size(), 1u);
    ASSERT_GT(calls.size(), 50u);
  }
  Words words(const std::string& name) const { return small_run(dir / name, data, {"--l0", "8", "--steps", "6"}); }

  // One run with the fault, and what is made of it.
  void survives(const Disk& disk, const Call& call) {
    const std::string out = dir / "run", what = std::string(disk.name) + ", " + call.kind;
    SCOPED_TRACE(what + ", call " + std::to_string(call.number));
    fs::remove_all(out);
    const std::string last = std::to_string(disk.for_good ? int64_t{1} << 40 : call.number);
    const Outcome o = run_binary(words("run"), faulty(out, {{"GSAE_FAULT_AT", std::to_string(call.number)},
                                                            {"GSAE_FAULT_LAST", last},
                                                            {"GSAE_FAULT_ERROR", std::to_string(disk.error)}}));
    ASSERT_TRUE(o.status == 0 || o.status == 1) << o.status << ": " << o.err;
    ++ended[o.status == 0                                   ? "went on, exit status 0"
            : o.err.find("results are whole") != o.err.npos ? "went on, exit status 1"
                                                            : "stopped, exit status 1"];
    expect_whole_checkpoints(out);
    if (o.status == 1) {
      EXPECT_NE(("\n" + o.err).find("\ngemma_sae: "), o.err.npos);
      const bool there = fs::exists(out + "/run.json"), nothing = !fs::exists(out) || fs::is_empty(out);
      EXPECT_TRUE(there || nothing) << o.err;
      expect_outcome(run_binary(there ? Words{"train", "--resume", out, "--quiet"} : words("run")), 0);
    }
    Ended now(out);
    EXPECT_TRUE(now.params == whole->params) << o.err;
    drop_errors(now.log);
    if (o.err.find("train.jsonl could not be written") == o.err.npos) {
      EXPECT_EQ(now.log, whole->log) << o.err;
    }
  }

  // All calls; else the one in the middle of some kinds, from the kind `first` on.
  void sweep(const Disk& disk, size_t first) {
    const bool all = std::getenv("GSAE_EVERY_FAULT") != nullptr;
    std::map<std::string, std::vector<Call>> kinds;
    for (const Call& call : calls) kinds[call.kind].push_back(call);
    constexpr size_t kEach = kSanitized ? 18 : 6;
    size_t index = 0;
    for (const auto& [kind, of_kind] : kinds) {
      const bool chosen = index++ % kEach == first;
      if (all) {
        for (const Call& call : of_kind) survives(disk, call);
        std::printf("%s: %s: %zu\n", disk.name, kind.c_str(), of_kind.size());
      } else if (chosen) {
        survives(disk, of_kind[of_kind.size() / 2]);
      }
    }
    for (const auto& [how, n] : ended) std::printf("%s: %ld runs %s\n", disk.name, long(n), how.c_str());
  }

  const TempFolder dir;
  const std::string data = dir / "data.jsonl";
  std::optional<Ended> whole;
  std::vector<Call> calls;
  std::map<std::string, int64_t> ended;
};

TEST_F(IoFaults, OneError) { sweep({"EIO once", EIO, false}, 0); }
TEST_F(IoFaults, ADiskThatFillsUp) { sweep({"ENOSPC from there on", ENOSPC, true}, 3); }
TEST_F(IoFaults, ADiskThatBreaks) {
  if (!std::getenv("GSAE_EVERY_FAULT"))
    GTEST_SKIP() << "GSAE_EVERY_FAULT is not set: tests/faults/io_errors.sh sets it";
  sweep({"EIO from there on", EIO, true}, 2);
}

}  // namespace
}  // namespace gsae::test
