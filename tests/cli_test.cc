// The commands through the binary: what a wrong command line, a missing file or a bad one gives, and that nothing is
// overwritten. Status 2 is a command line that cannot be meant, 1 what went wrong.
#include "kernels/context.h"
#include "tests/run_binary.h"

#include "kernels/context.h"
#include "tests/paths.h"

namespace gsae {
namespace {

using test::expect_outcome;
using test::Outcome;
using test::run_binary;
using test::TempFolder;

const std::vector<std::string> kCommands{"train", "eval", "activations", "generate", "tokenize", "info", "doctor"};

// A training run so small that it ends in a second or two.
std::vector<std::string> small_run(const std::string& out, const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{"train", "--model", "demo", "--layer", "0",   "--width",   "64", "--l0",
                                 "8",     "--steps", "2",    "--batch", "256", "--context", "64", "--eval-contexts",
                                 "0",     "--out",   out};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Cli, HelpOfTheProgramNamesEveryCommand) {
  const Outcome o = run_binary({"--help"});
  EXPECT_EQ(o.status, 0);
  for (const std::string& command : kCommands) EXPECT_NE(o.out.find("\n  " + command), std::string::npos) << command;
  EXPECT_NE(run_binary({"--version"}).out.find("gemma_sae " GSAE_VERSION), std::string::npos);
}

class CliOfEach : public testing::TestWithParam<std::string> {};

TEST_P(CliOfEach, HelpGoesToStandardOutput) {
  const Outcome o = run_binary({GetParam(), "--help"});
  EXPECT_EQ(o.status, 0);
  EXPECT_EQ(o.err, "");
  for (const char* option : {"--help", "--quiet"}) EXPECT_NE(o.out.find(option), std::string::npos) << option;
}

TEST_P(CliOfEach, AnUnknownOptionIsRefusedByName) {
  const TempFolder folder;
  std::vector<std::string> words{GetParam(), "--no-such-option"};
  if (GetParam() == "activations")
    words.insert(words.end(), {"--out", folder / "out"});  // it says first what is required
  if (GetParam() == "tokenize") words.insert(words.end(), {"--data", "-"});
  if (GetParam() == "info") words.insert(words.end(), {"."});
  expect_outcome(run_binary(words), 2, {"--no-such-option"});
}

INSTANTIATE_TEST_SUITE_P(Commands, CliOfEach, testing::ValuesIn(kCommands),
                         [](const auto& info) { return info.param; });

TEST(Cli, NoCommandAndAnUnknownOneAreUsageErrors) {
  expect_outcome(run_binary({}), 2, {"--help"});
  expect_outcome(run_binary({"fly"}), 2);
}

// Each with what the message has to name.
struct Impossible {
  std::string option, value;
  std::string first, second;
};
void PrintTo(const Impossible& p, std::ostream* out) { *out << p.option << " " << p.value; }
class CliImpossible : public testing::TestWithParam<Impossible> {};

TEST_P(CliImpossible, OptionsOfTrainAreUsageErrorsThatSayWhatMayBe) {
  const TempFolder folder;
  const Impossible& p = GetParam();
  std::vector<std::string> words = small_run(folder / "run");
  const auto given = std::find(words.begin(), words.end(), p.option);
  if (given != words.end()) given[1] = p.value;
  else words.insert(words.end(), {p.option, p.value});
  expect_outcome(run_binary(words), 2, {p.first, p.second});
  EXPECT_FALSE(std::filesystem::exists(folder / "run")) << "a refused run left a folder";
}

INSTANTIATE_TEST_SUITE_P(
    Values, CliImpossible,
    testing::Values(
        Impossible{"--layer", "6", "--layer", "0 to 5"}, Impossible{"--layer", "-1", "--layer", "0-25"},
        Impossible{"--layer", "two", "--layer", "0-25"}, Impossible{"--site", "nowhere", "res", "mlp"},
        Impossible{"--width", "0", "--width", "from 1"}, Impossible{"--width", "-4k", "--width", "from 1"},
        Impossible{"--width", "wide", "wide", "16k"}, Impossible{"--width", "1e30", "1e30", "16k"},
        Impossible{"--l0", "0", "--l0", "0.1"}, Impossible{"--l0", "65", "--l0", "64"},  // more than the width
        Impossible{"--lambda", "0.1", "--lambda", "--l0"},                               // both
        Impossible{"--steps", "0", "--steps", "at least 1"}, Impossible{"--batch", "0", "--batch", "at least 1"},
        Impossible{"--context", "1", "--context", "1024"},  // the demo's positions
        Impossible{"--context", "4096", "--context", "1024"}, Impossible{"--preset", "best", "gemma-scope", "default"},
        Impossible{"--dtype", "f8", "bf16", "f32"}, Impossible{"--precision", "f8", "bf16", "f32"},
        Impossible{"--device", "tpu", "cpu", "cuda"}, Impossible{"--device", "cuda:", "cuda:", "cuda:N"},
        Impossible{"--device", "cuda:x", "cuda:x", "cuda:N"}, Impossible{"--device", "cuda:-1", "cuda:-1", "cuda:N"},
        Impossible{"--device", "cuda:1.5", "cuda:1.5", "cuda:N"},
        Impossible{"--model-batch", "0", "--model-batch", "at least 1"},
        Impossible{"--profile-steps", "1", "--profile-steps 1", "A:B"},
        Impossible{"--profile-steps", "a:b", "--profile-steps", "'a'"},
        Impossible{"--profile-steps", "0:", "--profile-steps", "count ''"},
        Impossible{"--profile-steps", "1:1", "--profile-steps", "at least 2"},
        Impossible{"--profile-steps", "1:0", "--profile-steps", "at least 2"},
        Impossible{"--profile-steps", "0:1:2", "--profile-steps", "'1:2'"},
        Impossible{"--profile-steps", "2:9", "--profile-steps 2:9", "0 to 1"},
        Impossible{"--threads", "-1", "--threads", "4096"}));

// Of every command that computes: why it is not there, and what is. The same for a machine without a driver or a GPU,
// and for a build without CUDA.
TEST(Cli, AGpuThatIsNotThereIsAnErrorThatNamesTheCpu) {
  const TempFolder folder;
  std::map<std::string, std::string> none;
  if (cuda_backend() == CudaBackend::kEmulated) none = {{"GSAE_EMULATED_GPUS", "0"}};
  if (cuda_backend() == CudaBackend::kGpu) none = {{"CUDA_VISIBLE_DEVICES", ""}};
  const std::string why = cuda_backend() == CudaBackend::kNone ? "GSAE_CUDA=OFF" : "driver";
  const std::vector<std::vector<std::string>> commands{
      small_run(folder / "run"),
      {"eval", "--model", "demo"},
      {"activations", "--model", "demo", "--layer", "0", "--out", folder / "a.safetensors"},
      {"doctor"}};
  for (const auto& command : commands)
    for (const char* device : {"cuda", "cuda:0", "cuda:7"}) {
      std::vector<std::string> words = command;
      words.insert(words.end(), {"--device", device});
      const Outcome o = run_binary(words, none);
      expect_outcome(o, 1, {std::string("--device ") + device, why, "--device cpu"});
      EXPECT_EQ(std::count(o.err.begin(), o.err.end(), '\n'), 1) << o.err;
    }
  EXPECT_EQ(folder.count(), 0);
}

TEST(Cli, AnotherGpuThanThereAreIsAnErrorThatCountsThem) {
  if (!available(Device::kCuda)) GTEST_SKIP() << why_unavailable(Device::kCuda);
  const TempFolder folder;
  const Outcome o = run_binary(small_run(folder / "run", {"--device", "cuda:63"}));
  expect_outcome(o, 1, {"cuda:63: this machine has", "cuda:0"});
  EXPECT_EQ(o.err.find(".cu"), std::string::npos) << "no business of the user's: " << o.err;
  EXPECT_EQ(folder.count(), 0);
}

// Nothing but other options helps.
TEST(Cli, Tf32OnTheCpuIsAUsageError) {
  const TempFolder folder;
  expect_outcome(run_binary(small_run(folder / "run", {"--precision", "tf32", "--device", "cpu"})), 2,
                 {"--precision tf32", "GPU", "bf16", "f32"});
  EXPECT_EQ(folder.count(), 0);
}

TEST(Cli, TheDefaultModelThatIsNotInTheCacheComesWithWhatToDo) {
  const TempFolder folder;
  for (const char* command : {"train", "activations", "eval"}) {
    std::vector<std::string> words{command};
    if (command != std::string("eval")) words.insert(words.end(), {"--layer", "20", "--out", folder / "out"});
    expect_outcome(run_binary(words, {{"HF_HUB_CACHE", folder / "cache"}}), 1,
                   {(folder / "cache"), "download", "google/gemma-2-2b", "--model demo"});
  }
}

TEST(Cli, DataThatCannotBeReadAreErrorsThatNameTheFile) {
  const TempFolder folder;
  const auto expect = [&](const std::string& name, std::initializer_list<const char*> parts) {
    const std::string data = folder / name, out = folder / "run";
    const Outcome o = run_binary(small_run(out, {"--data", data}));
    EXPECT_EQ(o.status, 1) << name << ": " << o.err;
    for (const char* part : parts) EXPECT_NE(o.err.find(part), std::string::npos) << part << " is not in: " << o.err;
    std::filesystem::remove_all(out);
  };
  expect("missing.txt", {"missing.txt"});
  test::write_bytes(folder / "empty.txt", "");
  expect("empty.txt", {"empty.txt"});
  test::write_bytes(folder / "short.txt", "Call me Ishmael.");
  expect("short.txt", {"--context"});
  test::write_bytes(folder / "bad.jsonl", "{\"text\": \"fine\"}\n{\"text\": 5}\n");
  expect("bad.jsonl", {"bad.jsonl:2"});
  test::write_bytes(folder / "invalid.txt", std::string(4000, 'a') + "\xff\xfe" + std::string(4000, 'a'));
  expect("invalid.txt", {"invalid.txt", "UTF-8"});
  test::write_bytes(folder / "cut.jsonl.zst", test::read_bytes(test::demo_data("corpus.jsonl.zst")).substr(0, 3000));
  expect("cut.jsonl.zst", {"cut.jsonl.zst"});
}

TEST(Cli, ModelsThatCannotBeReadAreErrorsThatNameTheFile) {
  const TempFolder folder;
  const std::string model = folder / "model", out = folder / "run";
  const auto run = [&] {
    std::vector<std::string> words = small_run(out);
    words[2] = model;
    const Outcome o = run_binary(words);
    std::filesystem::remove_all(out);
    return o;
  };
  expect_outcome(run(), 1, {model});
  std::filesystem::create_directory(model);
  expect_outcome(run(), 1, {"config.json"});
  const std::string weights = test::read_bytes(test::demo_data("model/model.safetensors"));
  for (const char* file : {"config.json", "tokenizer.model"})
    test::write_bytes(model + "/" + file, test::read_bytes(test::demo_data("model/") + file));
  expect_outcome(run(), 1, {"safetensors"});
  test::write_bytes(model + "/model.safetensors", weights.substr(0, weights.size() / 2));
  expect_outcome(run(), 1, {"model.safetensors"});
  std::string lying = weights;
  lying.replace(0, 8, std::string(8, '\x7f'));  // a header longer than anything
  test::write_bytes(model + "/model.safetensors", lying);
  expect_outcome(run(), 1, {"model.safetensors"});
  test::write_bytes(model + "/model.safetensors", weights);
  EXPECT_EQ(run().status, 0);
}

TEST(Cli, AFolderThatHoldsARunIsLeftAsItIs) {
  const TempFolder folder;
  const std::string out = folder / "run";
  ASSERT_EQ(run_binary(small_run(out)).status, 0);
  std::map<std::string, std::string> before;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(out))
    if (entry.is_regular_file()) before[entry.path()] = test::read_bytes(entry.path());
  EXPECT_GE(before.size(), 3u);  // config.json, train.jsonl, the SAE
  expect_outcome(run_binary(small_run(out)), 1, {out});
  for (const auto& [path, bytes] : before) EXPECT_EQ(test::read_bytes(path), bytes) << path;
  size_t after = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(out)) after += entry.is_regular_file();
  EXPECT_EQ(after, before.size());
}

// Each pass of the model brings fewer rows than tokens: BOS is not trained on. The smallest buffer has to hold a batch
// nevertheless.
TEST(Cli, TheSmallestBufferHoldsABatch) {
  const TempFolder folder;
  std::vector<std::string> words = small_run(folder / "run");
  *(std::find(words.begin(), words.end(), "--batch") + 1) = "4096";
  expect_outcome(run_binary(words), 0);
}

TEST(Cli, AnOutputThatCannotBeWrittenIsAnErrorBeforeTheWork) {
  const TempFolder folder;
  test::write_bytes(folder / "file", "");
  expect_outcome(run_binary(small_run(folder / "file/run")), 1, {(folder / "file/run")});
  expect_outcome(run_binary(small_run("/proc/gemma_sae_run")), 1, {"/proc/gemma_sae_run"});  // for root as well
}

TEST(Cli, SaesThatCannotBeReadAreErrorsThatNameThem) {
  const TempFolder folder;
  expect_outcome(run_binary({"eval", "--model", "demo", "--sae", folder / "none"}), 1, {(folder / "none")});
  test::write_bytes(folder / "params.npz", "PK\x03\x04 and then nothing that an archive would hold");
  expect_outcome(run_binary({"eval", "--model", "demo", "--layer", "0", "--sae", folder / "params.npz"}), 1,
                 {(folder / "params.npz")});
  expect_outcome(run_binary({"info", folder / "none"}), 1, {(folder / "none")});
  expect_outcome(run_binary({"tokenize", "--model", "demo", "--data", folder / "none"}), 1, {(folder / "none")});
}

TEST(Cli, TokenizeReadsStandardInput) {
  const Outcome o = run_binary({"tokenize", "--model", "demo", "--data", "-"}, {}, "{\"text\": \"\"}\n");
  EXPECT_EQ(o.status, 0) << o.err;
}

}  // namespace
}  // namespace gsae
