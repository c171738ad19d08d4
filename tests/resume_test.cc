// `train --resume`, through the binary: a run that was killed, however often and wherever, ends in the bits of one that
// never stopped, with the same log; what is damaged, changed or taken is refused with what to do.
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/resource.h>

#include <chrono>
#include <functional>
#include <random>
#include <thread>

#include "io/json.h"
#include "tests/harness.h"
#include "tests/small_run.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;

// Kills the run once it has saved its state about so many times, again and again, until it ends by itself.
constexpr int kMostKills = 8;  // then it may end: a fast disk would be hit hundreds of times
int kill_until_it_ends(const Words& words, const std::string& out, int64_t every) {
  int kills = 0;
  for (Words now = words;; now = {"train", "--resume", out, "--quiet"}) {
    RunningBinary run(now);
    std::string newest;
    int64_t saved = 0;
    bool killed = false;
    for (int i = 0; i < 12000 && !killed; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (fs::exists(out + "/run.json") &&
          read_bytes(out + "/run.json").find("\"finished\": true") != std::string::npos)
        break;
      const auto names = list_checkpoints(out + "/checkpoints");
      if (!names.empty() && names[0] != newest) newest = names[0], ++saved;
      if (saved > every && kills < kMostKills) killed = true, ++kills;
    }
    if (killed) run.signal(SIGKILL);
    const Outcome o = run.wait();
    if (o.status == 0) return kills - (killed ? 1 : 0);
    EXPECT_EQ(o.status, 128 + SIGKILL) << o.err;
    if (o.status != 128 + SIGKILL) return kills;
  }
}

struct Case {
  const char* name;
  Words options;
  int64_t every;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
class ResumeOf : public testing::TestWithParam<Case> {};

TEST_P(ResumeOf, KilledRunsEndInTheSameBits) {
  const bool cuda = std::string(GetParam().name).starts_with("cuda"),
             emulated = cuda_backend() == CudaBackend::kEmulated;
  if (cuda && cuda_backend() == CudaBackend::kNone) GTEST_SKIP() << "this build has no CUDA backend";
  if (cuda && !emulated) require(Device::kCuda);
  if (IsSkipped()) return;
  if (!cuda && emulated) GTEST_SKIP() << "the CPU's runs are those of its own build";
  const TempFolder dir;
  const std::string data = dir / "data.jsonl";
  write_bytes(data, documents());
  expect_outcome(run_binary(small_run(dir / "whole", data, GetParam().options)), 0);
  const int kills =
      kill_until_it_ends(small_run(dir / "killed", data, GetParam().options), dir / "killed", GetParam().every);
  RecordProperty("kills", kills);
  EXPECT_GE(kills, 1);  // how many depends on how fast the machine is
  const Ended whole(dir / "whole"), killed(dir / "killed");
  EXPECT_FALSE(whole.params.empty());
  EXPECT_EQ(killed.params == whole.params, true);
  EXPECT_EQ(killed.log, whole.log);
  EXPECT_FALSE(fs::exists(dir / "killed/checkpoints"));
}

INSTANTIATE_TEST_SUITE_P(
    Runs, ResumeOf,
    testing::Values(Case{"f32", {"--l0", "8", "--steps", "500", "--dtype", "f32", "--precision", "f32"}, 5},
                    Case{"bf16 suite", {"--l0", "4,8", "--site", "res,att", "--steps", "500"}, 4},
                    Case{"two passes", {"--l0", "8", "--site", "res,mlp", "--steps", "250", "--passes", "2"}, 4},
                    Case{"in order", {"--lambda", "0.01", "--steps", "500", "--no-shuffle", "--sae-step", "sparse"}, 4},
                    Case{"rows computed again",
                         {"--l0", "4,8", "--site", "res,att", "--steps", "500", "--checkpoint-buffer", "none"},
                         3},
                    Case{"cuda", {"--l0", "8", "--steps", "10", "--device", "cuda"}, 1},
                    Case{"cuda, rows computed again",
                         {"--l0", "8", "--steps", "8", "--device", "cuda", "--checkpoint-buffer", "none"},
                         1},
                    Case{"cuda suite", {"--l0", "4,8", "--site", "res,mlp", "--steps", "6", "--device", "cuda"}, 1}));

// A run of 20 steps, stopped by a kill somewhere behind its tenth.
struct Resume : testing::Test {
  Resume() {
    write_bytes(data, documents());
    RunningBinary run(words());
    for (int i = 0; i < 12000 && saved_step(out) < 10; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    run.signal(SIGKILL);
    EXPECT_EQ(run.wait().status, 128 + SIGKILL);
    EXPECT_GE(saved_step(out), 10);
  }
  Words words(const std::string& folder = {}) const {
    return small_run(folder.empty() ? out : folder, data, {"--l0", "8", "--steps", "3000", "--device", "cpu"});
  }
  Outcome resume(const Words& more = {}) const { return run_binary(Words{"train", "--resume", out, "--quiet"} + more); }
  Words names() const {
    Words paths = list_checkpoints(out + "/checkpoints");
    for (std::string& path : paths) path = out + "/checkpoints/" + path;
    return paths;
  }

  const TempFolder dir;
  const std::string out = dir / "run", data = dir / "data.jsonl";
};
TEST_F(Resume, TheSameCommandLineSaysHowToGoOn) {
  expect_outcome(run_binary(words()), 1, {"has not finished", "step_", "gemma_sae train --resume " + out});
}

TEST_F(Resume, OptionsThatWouldChangeTheRunAreListed) {
  expect_outcome(resume({"--l0", "9", "--width", "128", "--preset", "gemma-scope"}), 2,
                 {"--l0 9 (it was 8)", "--preset gemma-scope (it was not given)"});
  const Outcome o = resume({"--l0", "9", "--width", "128"});
  EXPECT_EQ(o.err.find("--width"), std::string::npos) << o.err;  // it is the same
}

TEST_F(Resume, HarmlessOptionsMayChange) {
  const int64_t steps = saved_step(out) + 3;
  expect_outcome(resume({"--steps", std::to_string(steps), "--log-every", "1", "--keep", "1"}), 0);
  EXPECT_EQ(Ended(out).log.back().at("step"), steps);
}

TEST_F(Resume, FewerStepsThanAreDone) { expect_outcome(resume({"--steps", "5"}), 2, {"--tokens", "5 are asked for"}); }

// Flips one bit of a file, in its middle.
void flip(const std::string& path) {
  std::string bytes = read_bytes(path);
  bytes[bytes.size() / 2] ^= 4;
  write_bytes(path, bytes);
}

TEST_F(Resume, ADamagedCheckpointLeavesTheOneBefore) {
  const int64_t steps = saved_step(out) + 3;
  for (const char* file : {"tensors.safetensors", "record.json", "manifest.json"}) {
    const TempFolder copy;
    fs::copy(out, copy / "run", fs::copy_options::recursive);
    const auto names = list_checkpoints(copy / "run/checkpoints");
    ASSERT_GE(names.size(), 2u);  // the third is removed last
    flip(copy / ("run/checkpoints/" + names[0] + "/" + file));
    const Outcome o = run_binary({"train", "--resume", copy / "run", "--steps", std::to_string(steps), "--quiet"});
    expect_outcome(o, 0, {names[0], "is damaged", "trying the checkpoint before it"});
    EXPECT_EQ(o.err.find(names[1] + "/"), std::string::npos) << o.err;
  }
}

TEST_F(Resume, TruncatedCheckpoints) {
  for (const std::string& name : names()) fs::resize_file(name + "/tensors.safetensors", 5000);
  expect_outcome(resume(), 1, {"trying the checkpoint before it", "none of its checkpoints", "--out"});
}

TEST_F(Resume, AnotherVersionOfTheFormat) {
  for (const std::string& name : names()) {
    auto manifest = read_json(name + "/manifest.json");
    manifest["format"] = 99;
    write_bytes(name + "/manifest.json", manifest.dump());
  }
  expect_outcome(resume(), 1, {"format 99", fmt::format("format {}", kCheckpointFormat)});
}

TEST_F(Resume, ChangedData) {
  write_bytes(data, documents() + "{\"text\": \"one more\"}\n");
  expect_outcome(resume(), 1, {data, "has changed"});
}

// A log that someone has cut: the checkpoint before it has all of its lines, and they come again.
TEST(ResumeLog, ALogThatWasCut) {
  const TempFolder dir;
  const std::string data = dir / "data.jsonl", out = dir / "run";
  write_bytes(data, documents());
  const auto words = [&](const std::string& folder) {
    Words w = small_run(folder, data, {"--l0", "8", "--steps", "3000", "--keep", "3"});
    *(std::find(w.begin(), w.end(), "--log-every") + 1) = "1";
    return w;
  };
  RunningBinary run(words(out));
  for (int i = 0; i < 12000 && saved_step(out) < 10; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  run.signal(SIGKILL);
  ASSERT_EQ(run.wait().status, 128 + SIGKILL);
  const std::string steps = std::to_string(saved_step(out) + 3);
  const auto names = list_checkpoints(out + "/checkpoints");
  const auto bytes_of = [&](size_t i) {
    return read_json(out + "/checkpoints/" + names.at(i) + "/record.json").at("log_bytes").get<int64_t>();
  };
  ASSERT_GT(bytes_of(0), bytes_of(1));
  const int64_t before_all = bytes_of(names.size() - 1) - 1;
  for (const int64_t bytes : {bytes_of(0) - 1, bytes_of(1) + 10, before_all}) {
    const bool all = bytes == before_all;
    SCOPED_TRACE(bytes);
    const TempFolder copy;
    const std::string cut = copy / "run";
    fs::copy(out, cut, fs::copy_options::recursive);
    fs::resize_file(cut + "/train.jsonl", static_cast<uintmax_t>(bytes));
    const Outcome o = run_binary({"train", "--resume", cut, "--steps", steps, "--quiet"});
    expect_outcome(o, 0, {names[0] + ": counts on", "train.jsonl", "trying the checkpoint before it"});
    EXPECT_EQ(o.err.find("are lost") != o.err.npos, all) << o.err;
    int64_t step = 0, lost = 0;
    for (const auto& line : Ended(cut).log) {
      if (line.contains("lines_lost_before_step")) ++lost, step = line.at("lines_lost_before_step");
      else EXPECT_EQ(line.at("step"), ++step);
    }
    EXPECT_EQ(step, std::stoll(steps));
    EXPECT_EQ(lost, all ? 1 : 0);
  }
}

TEST_F(Resume, AnotherDeviceIsSaid) {
  if (cuda_backend() == CudaBackend::kNone) GTEST_SKIP() << "this build has no CUDA backend";
  if (cuda_backend() != CudaBackend::kEmulated) require(Device::kCuda);
  if (IsSkipped()) return;
  ASSERT_EQ(read_json(names().at(0) + "/record.json").at("device"), "cpu");
  expect_outcome(resume({"--device", "cuda", "--steps", std::to_string(saved_step(out) + 1)}), 0,
                 {"the run was on cpu and goes on on cuda: its bits will differ"});
}

TEST_F(Resume, TwoProcesses) {
  const int log = open((out + "/train.jsonl").c_str(), O_RDONLY);
  ASSERT_EQ(flock(log, LOCK_EX), 0);
  expect_outcome(resume(), 1, {out, "another gemma_sae"});
  close(log);
}

TEST_F(Resume, NoRun) {
  expect_outcome(run_binary({"train", "--resume", dir / "none"}), 1, {"run.json"});
  expect_outcome(run_binary({"train", "--resume", out, "--out", dir / "x"}), 2, {"--out"});
}

// Interrupted: the state of the step that was being taken is there, and how to go on is said.
TEST_F(Resume, CtrlCSavesTheState) {
  const int64_t from = saved_step(out);
  const auto logged = fs::file_size(out + "/train.jsonl");
  RunningBinary run(Words{"train", "--resume", out, "--quiet", "--checkpoint-every", "0", "--log-every", "1"});
  for (int i = 0; i < 12000 && fs::file_size(out + "/train.jsonl") <= logged; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  run.signal(SIGTERM);
  const Outcome o = run.wait();
  expect_outcome(o, 128 + SIGTERM, {"gemma_sae train --resume " + out});
  const int64_t at = saved_step(out);
  EXPECT_GT(at, from);
  EXPECT_NE(o.err.find(fmt::format("after step {} of", at)), std::string::npos) << o.err;
  expect_outcome(resume({"--steps", std::to_string(at + 2)}), 0);
  EXPECT_FALSE(fs::exists(out + "/interrupted"));
  fs::create_directories(out + "/checkpoints/step_1");  // as if killed while it removed them
  expect_outcome(resume(), 0);                          // has finished: nothing else to do
  EXPECT_FALSE(fs::exists(out + "/checkpoints"));
}

// Killed in the evaluation, behind the last step of its only pass: what was trained is not trained again.
TEST(ResumeLate, OnlyEvaluates) {
  const TempFolder dir;
  const std::string data = dir / "data.jsonl", out = dir / "run";
  write_bytes(data, documents());
  Words words = small_run(out, data, {"--l0", "8", "--steps", "12"});
  *(std::find(words.begin(), words.end(), "--eval-contexts") + 1) = "100000";
  *(std::find(words.begin(), words.end(), "--checkpoint-every") + 1) = "128";
  words.insert(words.end(), {"--eval-fraction", "0.9"});
  RunningBinary run(words);
  const std::string end = out + "/checkpoints/" + checkpoint_name(2, 1, 0);
  for (int i = 0; i < 12000 && !fs::exists(end); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  run.signal(SIGKILL);
  ASSERT_EQ(run.wait().status, 128 + SIGKILL);
  EXPECT_EQ(list_checkpoints(out + "/checkpoints")[0], checkpoint_name(2, 1, 0));  // it is the newest
  const auto written = [&] {
    for (const auto& entry : fs::recursive_directory_iterator(out))
      if (entry.path().filename() == "params.npz") return fs::last_write_time(entry.path());
    throw Error("no params.npz");
  };
  const auto before = written();
  expect_outcome(run_binary({"train", "--resume", out, "--quiet"}), 0);
  EXPECT_EQ(written(), before);
  EXPECT_EQ(Ended(out).log.back().at("step"), 12);
}

// Standard input is read once: nothing is saved that nobody could go on from, and that is said.
TEST(ResumeFailures, StandardInput) {
  const TempFolder dir;
  const std::string out = dir / "run";
  std::string text;
  for (int i = 0; i < 50; ++i) text += documents();
  RunningBinary run(small_run(out, "-", {"--l0", "8", "--steps", "100000"}), {}, text);
  for (int i = 0; i < 6000 && (!fs::exists(out + "/train.jsonl") || fs::file_size(out + "/train.jsonl") == 0); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  run.signal(SIGINT);
  expect_outcome(run.wait(), 128 + SIGINT, {"interrupted", "standard input cannot go on"});
  EXPECT_FALSE(fs::exists(out + "/checkpoints"));
  expect_outcome(run_binary({"train", "--resume", out}), 1, {"standard input"});
}

// A file-size limit as a disk that is full: no checkpoint fits, training goes on, its results are whole, and the exit
// status tells.
TEST(ResumeFailures, ADiskThatIsFull) {
  const TempFolder dir;
  const std::string data = dir / "data.jsonl", out = dir / "run";
  write_bytes(data, documents());
  const Words words = small_run(out, data, {"--l0", "8", "--steps", "6", "--site", "mlp"});
  const rlimit small{400 << 10, 400 << 10};  // params.npz has 200 kB, a checkpoint over 500
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit limit{small.rlim_cur, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Outcome o = run_binary(words);
  setrlimit(RLIMIT_FSIZE, &before);
  expect_outcome(o, 1, {"checkpoints could not be written", "results are whole"});
  const Ended ended(out);
  EXPECT_EQ(ended.params.size(), 1u);
  EXPECT_TRUE(std::any_of(ended.log.begin(), ended.log.end(),
                          [](const auto& line) { return line.contains("checkpoint_error"); }));
}

}  // namespace
}  // namespace gsae::test
