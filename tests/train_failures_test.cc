// What goes wrong before and during `train`: impossible options, bad input, full and read-only folders, signals. Each
// an error that says what to do, with nothing overwritten, nothing half-written, and nothing lost that was trained.
#include <fmt/format.h>
#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <limits>
#include <sstream>
#include <thread>

#include "io/json.h"
#include "io/npz.h"
#include "io/safetensors.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tests/run_binary.h"

namespace gsae::test {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

Words demo_run(const std::string& out, const Words& more = {}) {
  Words words{"train", "--model", "demo",    "--layer",         "1", "--width",   "128", "--batch",   "256",
              "--out", out,       "--quiet", "--eval-contexts", "0", "--threads", "1",   "--context", "64"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}
const Words kShort{"--l0", "8", "--steps", "2"};
const Words kEndless{"--l0", "8", "--steps", "1000000", "--buffer", "4k", "--log-every", "1"};
const Words kEndlessFill{"--l0", "8", "--steps", "1000000", "--buffer", "5M"};

Words operator+(Words a, const Words& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Waits until something is so: at most a minute, on a machine that has other things to do.
void wait_until(const std::function<bool()>& so) {
  for (int i = 0; i < 6000 && !so(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_TRUE(so());
}

// The SAE of a run that was stopped: complete, finite, said to be of this step; the log goes as far.
void expect_saved(const std::string& run, const Outcome& o) {
  const fs::path folder = run + "/interrupted";
  ASSERT_TRUE(fs::exists(folder)) << o.err;
  const std::string saved = fs::directory_iterator(folder)->path().string();
  EXPECT_NE(o.err.find(saved), std::string::npos) << o.err;
  const auto arrays = read_npz(saved + "/params.npz");
  EXPECT_EQ(arrays.size(), 5u);
  for (const auto& [name, array] : arrays)
    for (const float value : array.values) ASSERT_TRUE(std::isfinite(value)) << name;
  const int64_t step = std::stoll(saved.substr(saved.rfind('_') + 1));
  EXPECT_EQ(read_json(saved + "/config.json").at("tokens"), step * 256);
  std::istringstream log(read_bytes(run + "/train.jsonl"));
  std::string line, last;
  while (std::getline(log, line)) last = line;
  EXPECT_EQ(nlohmann::json::parse(last).at("step"), step);
  EXPECT_FALSE(fs::exists(run + "/layer_1"));  // nothing that looks like the end of a run
}

struct Impossible {
  Words words;
  Words parts;  // of the message
};
void PrintTo(const Impossible& p, std::ostream* out) {
  for (const std::string& word : p.words) *out << word << " ";
}
class TrainImpossible : public testing::TestWithParam<Impossible> {};

TEST_P(TrainImpossible, IsAUsageErrorThatLeavesNothing) {
  const TempFolder dir;
  expect_outcome(run_binary(demo_run(dir / "run", GetParam().words)), 2, GetParam().parts);
  EXPECT_EQ(dir.count(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Options, TrainImpossible,
    testing::Values(Impossible{{"--lambda", "0.1", "--l0", "8"}, {"--lambda", "--l0", "gemma-scope-2"}},
                    Impossible{{"--preset", "gemma-scope", "--lambda", "0.1", "--l0", "8"}, {"--lambda", "--l0"}},
                    Impossible{{"--l0", "many"}, {"--l0 many", "128"}}, Impossible{{"--l0", "nan"}, {"--l0 nan"}},
                    Impossible{{"--lambda", "-1"}, {"--lambda -1", "0"}},
                    Impossible{{"--l0", "8", "--tokens", "255"}, {"--tokens 255", "256"}},
                    Impossible{{"--l0", "8", "--tokens", "some"}, {"--tokens", "some"}},
                    Impossible{{"--l0", "8", "--tokens", "4k", "--steps", "3"}, {"--tokens", "--steps"}},
                    Impossible{{"--l0", "8", "--steps", "9e15"}, {"--steps", "at most"}},
                    Impossible{{"--l0", "8", "--buffer", "100"}, {"--buffer 100", "at least", "a batch"}},
                    Impossible{{"--l0", "8", "--buffer", "3G"}, {"--buffer", "2147483647"}},
                    Impossible{{"--l0", "8", "--lr", "fast"}, {"--lr fast"}},
                    Impossible{{"--l0", "8", "--lr-decay", "1.5"}, {"--lr-decay 1.5"}},
                    Impossible{{"--l0", "8", "--bandwidth", "0"}, {"--bandwidth 0"}},
                    Impossible{{"--l0", "8", "--revive", "1"}, {"--revive 1", "0.5"}},
                    Impossible{{"--l0", "8", "--input-scale", "nan"}, {"--input-scale"}},
                    Impossible{{"--l0", "8", "--input-scale", "-2"}, {"--input-scale"}},
                    Impossible{{"--l0", "8", "--log-every", "0"}, {"--log-every"}},
                    Impossible{{"--l0", "8,200"}, {"--l0 200", "128"}}, Impossible{{"--l0", "8,"}, {"--l0 ", "0.1"}},
                    Impossible{{"--lambda", "0.1,x"}, {"--lambda x"}},
                    Impossible{{"--lambda", "0.1,0.2", "--l0", "8,16", "--preset", "gemma-scope-2"}, {"a list"}},
                    Impossible{{"--l0", "8", "--passes", "2"}, {"--passes 2", "auto"}},
                    Impossible{{"--l0", "8", "--passes", "few"}, {"--passes", "few"}},
                    Impossible{{"--l0", "8", "--sae-step", "fast"}, {"--sae-step", "dense", "sparse"}},
                    Impossible{{"--l0", "8", "--eval-loss-contexts", "-1"}, {"--eval-loss-contexts -1", "at least 0"}},
                    Impossible{{"--l0", "8", "--site", "res,mlp", "--init", "a.safetensors"},
                               {"--init", "one --width"}},
                    Impossible{{"--l0", "8", "--activations", "x.safetensors"}, {"--activations", "--model"}}));

TEST(TrainFailures, OptionsAreCheckedBeforeFilesAreOpened) {
  const TempFolder dir;
  const std::map<std::string, std::string> no_cache{{"HF_HUB_CACHE", dir / "cache"}};
  expect_outcome(run_binary({"train", "--width", "0"}, no_cache), 2, {"--width 0"});
  expect_outcome(run_binary({"train", "--site", "nowhere"}, no_cache), 2, {"attn_out"});
  expect_outcome(run_binary({"train", "--width", "64"}, no_cache), 2, {"--l0"});  // the default is more than that
  expect_outcome(run_binary({"train", "--activations", dir / "none", "--batch", "0"}), 2, {"--batch"});
  expect_outcome(run_binary({"train", "--activations", dir / "none", "--layer", "1-2"}), 2, {"1-2"});
  expect_outcome(run_binary({"train", "--activations", dir / "none", "--layer", "-1"}), 2, {"-1"});
  expect_outcome(run_binary({"train", "--width", "16k,0"}, no_cache), 2, {"--width 0"});
  expect_outcome(run_binary({"train", "--width", "16k,64"}, no_cache), 2, {"--width 16k,64", "--l0"});
  expect_outcome(run_binary({"train", "--layer", "3,x"}, no_cache), 2, {"--layer 3,x"});
  expect_outcome(run_binary({"train", "--layer", "0-5,9-7"}, no_cache), 2, {"--layer 0-5,9-7", "3,7,10-12"});
  expect_outcome(run_binary({"train", "--layer", "0-99999999999999"}, no_cache), 2, {"--layer 0-99999999999999"});
  expect_outcome(run_binary({"train", "--site", "res,mlp,att", "--layer", "0-1000", "--l0", "8,16"}, no_cache), 2,
                 {"1001 x 3 x 1 x 2 = 6006 SAEs", "4096"});
  expect_outcome(run_binary({"train", "--layer", "0,1", "--input-scale", "2"}, no_cache), 2, {"--input-scale 2"});
  expect_outcome(run_binary({"train", "--lr", "fast"}, no_cache), 2, {"--lr fast"});
}

TEST(TrainFailures, TheFolderMustBeNewOrEmpty) {
  const TempFolder dir;
  fs::create_directory(dir / "empty");
  expect_outcome(run_binary(demo_run(dir / "empty", kShort)), 0);
  EXPECT_TRUE(fs::exists(dir / "empty/config.json"));
  fs::create_directories(dir / "other/layer_1");
  expect_outcome(run_binary(demo_run(dir / "other", kShort)), 1, {dir / "other", "not empty", "layer_1"});
  EXPECT_EQ(std::distance(fs::recursive_directory_iterator(dir / "other"), fs::recursive_directory_iterator()), 1);
  write_bytes(dir / "file", "text");
  expect_outcome(run_binary(demo_run(dir / "file", kShort)), 1, {dir / "file", "folder"});
  EXPECT_EQ(read_bytes(dir / "file"), "text");
}

// Limits what the programs that this scope starts can write to a file: a disk that is full for anything larger.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(TrainFailures, AFullDisk) {
  const TempFolder dir;
  Outcome o;
  {  // no room for the configuration: nothing is left of the run
    const FileSizeLimit limit(600);
    o = run_binary(demo_run(dir / "a/b/run", kShort));
  }
  expect_outcome(o, 1, {"cannot write", "config.json"});
  EXPECT_EQ(dir.count(), 0);
  {  // room for some lines of the log, but not for the result (200 kB): whole lines, and no half of a result
    const FileSizeLimit limit(3000);
    o = run_binary(demo_run(dir / "run", {"--l0", "8", "--steps", "30", "--log-every", "1"}));
  }
  expect_outcome(o, 1, {"cannot write", "params.npz"});
  EXPECT_FALSE(fs::exists(dir / "run/layer_1"));
  std::istringstream log(read_bytes(dir / "run/train.jsonl"));
  int64_t lines = 0;
  for (std::string line; std::getline(log, line);) EXPECT_EQ(nlohmann::json::parse(line).at("step"), ++lines);
  EXPECT_GT(lines, 1);
  EXPECT_LT(lines, 30);
}

// The activations of a test: (rows, width) f32.
void write_activations(const std::string& path, int64_t rows, int64_t width, float at_row_1000 = 0) {
  std::vector<float> x(rows * width);
  for (int64_t i = 0; i < rows * width; ++i) x[i] = float(i * 7919 % 1013) / 500 - 1;
  if (at_row_1000 != 0) x[1000 * width + 3] = at_row_1000;
  SafetensorsWriter writer(path, {{"activations", "F32", {rows, width}}});
  writer.append("activations", x.data(), x.size() * sizeof(float));
  writer.close();
}

TEST(TrainFailures, SavedActivationsThatCannotBeTrainedOn) {
  const TempFolder dir;
  const std::string file = dir / "a.safetensors", out = dir / "run";
  const auto expect = [&](int status, const Words& parts, const Words& more = {}) {
    const Words words{"train", "--activations", file, "--width", "64",        "--l0", "8",     "--batch",
                      "512",   "--steps",       "4",  "--quiet", "--threads", "1",    "--out", out};
    expect_outcome(run_binary(words + more), status, parts);
    EXPECT_EQ(fs::exists(out), status == 0);
    fs::remove_all(out);
  };
  expect(1, {file, "No such file"});
  write_activations(file, 2048, 16);
  expect(0, {});
  const std::string good = read_bytes(file);
  write_bytes(file, good.substr(0, good.size() / 2));
  expect(1, {file});
  std::string lying = good;
  lying.replace(lying.find("[2048,16]"), 9, "[2048,99]");
  write_bytes(file, lying);
  expect(1, {file});
  write_bytes(file, "");
  expect(1, {file});
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    write_activations(file, 2048, 16, bad);
    expect(1, {file, "row 1000", "NaN"});
    expect(1, {file, "row 1000", "NaN"}, {"--input-scale", "2"});
  }
  const auto write = [&](const std::string& name, const std::string& dtype, std::vector<int64_t> shape, size_t bytes) {
    SafetensorsWriter writer(file, {{name, dtype, std::move(shape)}});
    const std::string zeros(bytes, '\0');
    writer.append(name, zeros.data(), bytes);
    writer.close();
  };
  write("activations", "F16", {64, 16}, 2048);
  expect(1, {file, "F16", "BF16"});
  write("activations", "F32", {1024}, 4096);
  expect(1, {file, "no matrix"});
  write("activations", "F32", {0, 16}, 0);
  expect(1, {file, "empty"});
  write("res.3", "F32", {64, 16}, 4096);  // zeros
  expect(1, {"root mean square", "nothing at all"});
  SafetensorsWriter two(file, {{"res.3", "F32", {2, 2}}, {"res.4", "F32", {2, 2}}});
  const std::string zeros(16, '\0');
  two.append("res.3", zeros.data(), 16);
  two.append("res.4", zeros.data(), 16);
  two.close();
  expect(1, {file, "res.3", "res.4", "--layer"});
}

TEST(TrainFailures, ParametersThatCannotBeStartedFrom) {
  const TempFolder dir;
  const std::string activations = dir / "a.safetensors", init = dir / "init.safetensors", out = dir / "run";
  constexpr int64_t d = 16, F = 32;
  write_activations(activations, 2048, d);
  struct Init {
    std::vector<float> W_enc, W_dec, b_enc, b_dec, threshold;
    std::vector<int64_t> W_enc_shape{d, F};
    std::string dtype = "F32";
    bool with_threshold = true;
  };
  const Init good{.W_enc = std::vector<float>(d * F, 0.1f),
                  .W_dec = std::vector<float>(F * d, 0.25f),  // rows of norm 1
                  .b_enc = std::vector<float>(F),
                  .b_dec = std::vector<float>(d),
                  .threshold = std::vector<float>(F, 0.01f)};
  const auto expect = [&](const Init& i, int status, const Words& parts, const std::string& width = "32") {
    std::vector<SafetensorsWriter::Declared> tensors{
        {"W_enc", i.dtype, i.W_enc_shape}, {"W_dec", "F32", {F, d}}, {"b_enc", "F32", {F}}, {"b_dec", "F32", {d}}};
    if (i.with_threshold) tensors.push_back({"threshold", "F32", {F}});
    SafetensorsWriter writer(init, tensors);
    writer.append("W_enc", i.W_enc.data(), i.W_enc.size() * sizeof(float));
    writer.append("W_dec", i.W_dec.data(), i.W_dec.size() * sizeof(float));
    writer.append("b_enc", i.b_enc.data(), i.b_enc.size() * sizeof(float));
    writer.append("b_dec", i.b_dec.data(), i.b_dec.size() * sizeof(float));
    if (i.with_threshold) writer.append("threshold", i.threshold.data(), i.threshold.size() * sizeof(float));
    writer.close();
    expect_outcome(run_binary({"train", "--activations", activations, "--init", init, "--width", width, "--l0", "8",
                               "--batch", "512", "--steps", "4", "--quiet", "--threads", "1", "--out", out}),
                   status, parts);
    EXPECT_EQ(fs::exists(out), status == 0);
    fs::remove_all(out);
  };
  expect(good, 0, {});
  expect(good, 1, {init, "W_enc", "[16, 32]", "[16, 64]", "--width"}, "64");
  Init bad = good;
  bad.W_enc_shape = {F, d};
  expect(bad, 1, {init, "W_enc", "[32, 16]"});
  bad = good;
  bad.dtype = "I32";
  expect(bad, 1, {"W_enc", "I32"});
  bad = good;
  bad.with_threshold = false;
  expect(bad, 1, {init, "threshold"});
  bad = good;
  bad.threshold[5] = -0.5f;
  expect(bad, 1, {init, "threshold[5]", "-0.5"});
  bad = good;
  bad.b_enc[7] = std::numeric_limits<float>::quiet_NaN();
  expect(bad, 1, {init, "b_enc[7]", "nan"});
  bad = good;
  bad.W_dec[3 * d] = 0;
  expect(bad, 1, {init, "row 3", "norm"});
}

TEST(TrainFailures, AModelWithNaNOrWithoutAShard) {
  const TempFolder dir;
  const std::string model = dir / "model", weights = model + "/model.safetensors";
  fs::create_directory(model);
  for (const char* name : {"config.json", "tokenizer.model", "model.safetensors"})
    fs::copy_file(fs::path(demo_data("model")) / name, fs::path(model) / name);
  Words words = demo_run(dir / "run", kShort);
  words[2] = model;
  std::string bytes = read_bytes(weights);
  {
    const SafetensorsFile file(weights);
    const std::byte* first = nullptr;  // where the data begin
    size_t data = 0;
    for (const auto& [name, t] : file.tensors()) {
      first = first ? std::min(first, t.data) : t.data;
      data += t.bytes;
    }
    const StoredTensor& norm = file.get("model.layers.0.input_layernorm.weight");
    const size_t at = bytes.size() - data + static_cast<size_t>(norm.data - first);
    for (size_t i = 0; i < 4; ++i) bytes[at + i] = "\xc0\x7f\xc0\x7f"[i];  // NaN as bf16 and as f32
  }
  write_bytes(weights, bytes);
  expect_outcome(run_binary(words), 1, {"NaN"});
  EXPECT_FALSE(fs::exists(dir / "run"));

  fs::remove(weights);
  write_bytes(model + "/model.safetensors.index.json",
              R"({"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}})");
  expect_outcome(run_binary(words), 1, {"model-00001-of-00002.safetensors"});
  EXPECT_FALSE(fs::exists(dir / "run"));
}

// Text of many documents.
std::string documents(int count) {
  std::string text;
  for (int i = 0; i < count; ++i)
    text += fmt::format("{{\"text\": \"{} documents tell of {} rivers, {} hills and a house by the sea.\"}}\n", i,
                        i * i % 97, i * 31 % 89);
  return text;
}

TEST(TrainFailures, MalformedLines) {
  const TempFolder dir;
  write_bytes(dir / "bad.jsonl", documents(40) + "{\"text\": \"no end\n" + documents(200));
  expect_outcome(run_binary(demo_run(dir / "run", kShort + Words{"--data", dir / "bad.jsonl"})), 1, {"bad.jsonl:41"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  expect_outcome(run_binary(demo_run(dir / "run", kShort + Words{"--data", dir / "bad.jsonl", "--skip-bad"})), 0);
}

TEST(TrainFailures, TextThatHoldsNothingToEvaluateOnIsSaidBeforeTheTraining) {
  const TempFolder dir;
  write_bytes(dir / "few.jsonl", documents(30));
  Words words = demo_run(dir / "run", kShort + Words{"--data", dir / "few.jsonl", "--eval-fraction", "0.01"});
  *(std::find(words.begin(), words.end(), "--eval-contexts") + 1) = "8";
  expect_outcome(run_binary(words), 1, {"held out", "--eval-contexts 0", "--data"});
  EXPECT_FALSE(fs::exists(dir / "run"));
  *(std::find(words.begin(), words.end(), "--eval-fraction") + 1) = "0";
  expect_outcome(run_binary(words), 0, {"nothing will be evaluated"});
}

// Standard input ends, and a damaged line comes late: what was trained is saved.
TEST(TrainFailures, DataThatEndOrFailLateLoseNothing) {
  const TempFolder dir;
  const Words many{"--l0", "8", "--steps", "4000", "--buffer", "4k", "--log-every", "1", "--no-shuffle"};
  Outcome o = run_binary(demo_run(dir / "ended", many + Words{"--data", "-"}), {}, documents(600));
  expect_outcome(o, 1, {"the data ended", "--tokens", "of 4000"});
  expect_saved(dir / "ended", o);

  write_bytes(dir / "late.jsonl", documents(600) + "{\"text\": 5}\n" + documents(10));
  o = run_binary(demo_run(dir / "damaged", many + Words{"--data", dir / "late.jsonl"}));
  expect_outcome(o, 1, {"late.jsonl:601", "of 4000"});
  expect_saved(dir / "damaged", o);
}

struct TrainFailuresOn : OnDevice {};
ON_DEVICES(TrainFailuresOn);

// On a GPU what was trained is read back from it, behind the steps that were asked for.
TEST_P(TrainFailuresOn, AnInterruptSavesWhatWasTrained) {
  for (const auto& [signal, folder] : {std::pair{SIGINT, "int"}, std::pair{SIGTERM, "term"}}) {
    if (emulated(ctx) && signal == SIGTERM) break;  // one of them takes it long enough
    const TempFolder dir;
    const std::string run = dir / folder;
    Words words = demo_run(run, kEndless + Words{"--device", name(GetParam()), "--model-batch", "4"});
    *(std::find(words.begin(), words.end(), "--buffer") + 1) = emulated(ctx) ? "512" : "4k";
    RunningBinary binary(words);
    const size_t some = emulated(ctx) ? 1000 : 2000;  // bytes of the log: steps
    wait_until([&] { return fs::exists(run + "/train.jsonl") && fs::file_size(run + "/train.jsonl") > some; });
    binary.signal(signal);
    const Outcome o = binary.wait();
    expect_outcome(o, 128 + signal, {"interrupted"});
    expect_saved(run, o);
    // and it is an SAE like any other
    expect_outcome(run_binary({"eval", "--model", "demo", "--sae", run, "--contexts", "2", "--context", "64", "--quiet",
                               "--threads", "1", "--no-losses"}),
                   0);
  }
}

TEST(TrainFailures, AnInterruptBeforeTheFirstStepLeavesNothing) {
  const TempFolder dir;
  RunningBinary binary(demo_run(dir / "deep/run", kEndlessFill));
  wait_until([&] { return fs::exists(dir / "deep/run/train.jsonl"); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  binary.signal(SIGINT);
  expect_outcome(binary.wait(), 130, {"nothing was trained"});
  EXPECT_EQ(dir.count(), 0);
}

TEST(TrainFailures, ARunOutlivesItsOutputs) {
  const TempFolder dir;
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  close(pipe_ends[0]);  // as `| head` leaves it
  Words words = demo_run(dir / "pipe", kShort);
  words.erase(std::find(words.begin(), words.end(), "--quiet"));
  RunningBinary binary(words, {}, "", pipe_ends[1]);
  expect_outcome(binary.wait(), 0);
  close(pipe_ends[1]);
  EXPECT_TRUE(fs::exists(dir / "pipe/layer_1"));

  // closed from the start: no file takes their place, and is written into
  const std::string line = gemma_sae_binary() + " train --model demo --layer 1 --width 128 --l0 8 --steps 2 " +
                           "--batch 256 --context 64 --eval-contexts 0 --threads 1 --log-every 1 --out " +
                           (dir / "closed") + " <&- >&- 2>&-";
  EXPECT_EQ(std::system(line.c_str()), 0);
  std::istringstream log(read_bytes(dir / "closed/train.jsonl"));
  int64_t lines = 0;
  for (std::string text; std::getline(log, text);) EXPECT_EQ(nlohmann::json::parse(text).at("step"), ++lines);
  EXPECT_EQ(lines, 2);
  EXPECT_TRUE(fs::exists(dir / "closed/layer_1"));
}

}  // namespace
}  // namespace gsae::test
