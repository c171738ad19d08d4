// Clocks that jump under a training run, and a second Ctrl-C while the first one's checkpoint is written.
#include <gtest/gtest.h>

#include <cctype>
#include <chrono>
#include <thread>

#include "tests/faults.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

bool has_negative_number(const std::string& text) {
  for (size_t at = text.find('-'); at != text.npos; at = text.find('-', at + 1))
    if ((at == 0 || std::isspace(static_cast<unsigned char>(text[at - 1]))) && at + 1 < text.size() &&
        std::isdigit(static_cast<unsigned char>(text[at + 1])))
      return true;
  return false;
}

// Of the lines "NUMBER CALL PATH" that the faults' library writes.
bool renames_a_checkpoint(const std::string& calls) {
  std::istringstream lines(calls);
  for (std::string line; std::getline(lines, line);)
    if (line.find(" rename ") != line.npos && line.find("/checkpoints/step_") != line.npos) return true;
  return false;
}

struct TimeFaults : testing::Test {
  void SetUp() override {
    require_faults();
    write_bytes(data, documents());
  }
  // Saved by time alone, so that a run of a second saves nothing, with what it says of rates.
  Words words(const std::string& name, const char* steps, const char* every) const {
    Words w = small_run(dir / name, data, {"--l0", "8", "--steps", steps});
    *(std::find(w.begin(), w.end(), "--checkpoint-every") + 1) = every;
    w.erase(std::find(w.begin(), w.end(), "--quiet"));
    return w;
  }

  const TempFolder dir;
  const std::string data = dir / "data.jsonl";
};

TEST_F(TimeFaults, ClocksThatJump) {
  expect_outcome(run_binary(words("whole", "30", "10min")), 0);
  const Ended whole(dir / "whole");
  struct Jump {
    const char *name, *realtime, *monotonic;
    bool saves;  // what is due by the clock that nobody sets is saved
  };
  // The 8th write to the folder is in the log, behind some steps. No jump of CLOCK_MONOTONIC goes back: Linux has none.
  for (const Jump& jump : {Jump{"forward", "18000", "0", false}, Jump{"back", "-18000", "0", false},
                           Jump{"suspended", "18000", "18000", true}}) {
    SCOPED_TRACE(jump.name);
    const std::string out = dir / jump.name, calls = dir / (std::string(jump.name) + ".calls");
    const Outcome o =
        run_binary(words(jump.name, "30", "10min"), faulty(out, {{"GSAE_FAULT_LOG", calls},
                                                                 {"GSAE_FAULT_CLOCK_AT", "8"},
                                                                 {"GSAE_FAULT_REALTIME", jump.realtime},
                                                                 {"GSAE_FAULT_MONOTONIC", jump.monotonic}}));
    expect_outcome(o, 0);
    const Ended now(out);
    EXPECT_TRUE(now.params == whole.params);
    EXPECT_EQ(now.log, whole.log);
    std::istringstream log(read_bytes(out + "/train.jsonl"));
    for (std::string line; std::getline(log, line);) {
      const auto j = nlohmann::json::parse(line);
      EXPECT_GT(j.at("tokens_per_second").get<double>(), 0);
      for (const char* key : {"model_seconds", "sae_seconds", "roof_fraction"}) EXPECT_GE(j.at(key).get<double>(), 0);
    }
    const std::string said = o.out + o.err;
    EXPECT_FALSE(has_negative_number(said)) << said;  // no rate, no time that is left
    EXPECT_NE(said.find("tok/s"), said.npos);
    EXPECT_EQ(renames_a_checkpoint(read_bytes(calls)), jump.saves);
  }
}

TEST_F(TimeFaults, ASecondCtrlCEndsAtOnce) {
  const char* steps = kSanitized ? "500" : "2000";  // more than it takes until it is interrupted
  expect_outcome(run_binary(words("whole", steps, "0")), 0);
  const std::string out = dir / "run", slow = dir / "slow";
  RunningBinary run(words("run", steps, "64"),
                    faulty(out, {{"GSAE_FAULT_FSYNC_MS", "400"}, {"GSAE_FAULT_FSYNC_IF", slow}}));
  for (int i = 0; i < 12000 && saved_step(out) < 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  write_bytes(slow, "");  // from now on a checkpoint takes seconds
  run.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const auto asked = std::chrono::steady_clock::now();
  run.signal(SIGINT);
  const Outcome o = run.wait();
  EXPECT_LT(std::chrono::steady_clock::now() - asked, std::chrono::milliseconds(1500));
  EXPECT_EQ(o.status, 128 + SIGINT);
  EXPECT_EQ(o.err.find("go on with"), o.err.npos) << o.err;  // it did not come to that
  expect_whole_checkpoints(out);
  EXPECT_GE(saved_step(out), 2);
  expect_outcome(run_binary({"train", "--resume", out, "--quiet"}), 0);
  const Ended now(out), whole(dir / "whole");
  EXPECT_TRUE(now.params == whole.params);
  EXPECT_EQ(now.log, whole.log);
}

}  // namespace
}  // namespace gsae::test
