// tools/gpu_check.sh, on whatever device this build finds: without a GPU it says so in seconds; with one, be it
// emulated, it runs through. What it finds there is not asked.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "kernels/context.h"
#include "tests/files.h"
#include "tests/paths.h"

namespace gsae::test {
namespace {

struct Checked {
  int status = -1;
  std::string text, markdown;
  nlohmann::json json;

  nlohmann::json part(const std::string& name) const {
    for (const nlohmann::json& part : json["parts"])
      if (part["name"] == name) return part;
    return {};
  }
};

Checked gpu_check(const std::string& arguments) {
  const TempFolder folder;
  const std::string out = folder / "it's \"here\"";  // names that a shell, and JSON, must not be confused by
  std::filesystem::create_directory(out);
  const std::string build = std::filesystem::path(gemma_sae_binary()).parent_path().string();
  const std::string command =
      "'" + gpu_check_script() + "' --build '" + build + "' " + arguments + " >'" + (folder / "text") + "' 2>&1 --out ";
  std::string quoted;
  for (const char c : out) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  const int status = std::system((command + "'" + quoted + "'").c_str());
  Checked checked{WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_bytes(folder / "text"), "", {}};
  checked.markdown = read_bytes(out + "/gpu_check.md");
  checked.json = nlohmann::json::parse(read_bytes(out + "/gpu_check.json"));
  return checked;
}

TEST(GpuCheck, WithoutAGpuItSaysWhyInSeconds) {
  if (available(Device::kCuda)) GTEST_SKIP() << "there is one";
  const auto began = std::chrono::steady_clock::now();
  const Checked checked = gpu_check("");
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(60));  // a busy machine; 5 s on an idle one
  EXPECT_EQ(checked.status, 1) << checked.text;
  const std::string why = why_unavailable(Device::kCuda);
  EXPECT_NE(checked.text.find(why), std::string::npos) << why << " is not in:\n" << checked.text;
  EXPECT_NE(checked.markdown.find(why), std::string::npos) << checked.markdown;
  EXPECT_EQ(checked.json["passed"], false);
  EXPECT_EQ(checked.json["parts"].size(), 6u);
  for (const nlohmann::json& part : checked.json["parts"]) EXPECT_EQ(part["status"], "failed") << part;
  EXPECT_NE(checked.part("machine")["note"].get<std::string>().find(why), std::string::npos);
  EXPECT_EQ(checked.json["doctor"]["cuda"]["available"], false);
}

TEST(GpuCheck, RunsThrough) {
  if (!available(Device::kCuda)) GTEST_SKIP() << why_unavailable(Device::kCuda);
  // What is asked of the demo's four runs holds for long ones only; these show that they run and are compared.
  setenv("GSAE_CHECK_DEMO",
         "--layer 0 --width 64 --l0 8 --steps 2 --batch 32 --context 32 --model-batch 2 --eval-contexts 2 --threads 1",
         1);
  const Checked checked = gpu_check("--parts machine,tests,demo --tests '(rms_norm|hub)_test'");
  unsetenv("GSAE_CHECK_DEMO");
  EXPECT_EQ(checked.part("machine")["status"], "passed") << checked.text;
  EXPECT_EQ(checked.part("tests")["status"], "passed") << checked.text;
  EXPECT_EQ(checked.json["doctor"]["cuda"]["available"], true);
  ASSERT_EQ(checked.json["tests"].size(), 2u);
  EXPECT_EQ(checked.json["tests"][0]["program"], "hub_test");
  for (const nlohmann::json& program : checked.json["tests"]) {
    EXPECT_GT(program["passed"], 3) << program;
    EXPECT_EQ(program["failed"], 0) << program;
  }
  ASSERT_EQ(checked.json["demo"].size(), 4u) << checked.text;
  for (const nlohmann::json& run : checked.json["demo"]) EXPECT_GT(run["fvu"], 0) << run;
  const std::string note = checked.part("demo")["note"];
  for (const char* part : {"cuda and again: the same bits.", "cuda and eager: the same bits.", "L0 ", "FVU "})
    EXPECT_NE(note.find(part), std::string::npos) << part << " is not in " << note;
  EXPECT_EQ(checked.json["parts"].size(), 3u);
  EXPECT_NE(checked.markdown.find("| rms_norm_test | ok |"), std::string::npos) << checked.markdown;
}

TEST(GpuCheck, AFailedTestDoesNotStopTheOthers) {
  if (!available(Device::kCuda)) GTEST_SKIP() << why_unavailable(Device::kCuda);
  setenv("GSAE_TEST_DATA", "/nonexistent", 1);  // what npz_test reads
  const Checked checked = gpu_check("--parts machine,tests --tests '(npz|hub)_test'");
  unsetenv("GSAE_TEST_DATA");
  EXPECT_EQ(checked.status, 1);
  EXPECT_EQ(checked.json["passed"], false);
  EXPECT_EQ(checked.part("tests")["status"], "failed");
  ASSERT_EQ(checked.json["tests"].size(), 2u);
  EXPECT_EQ(checked.json["tests"][0]["status"], 0);
  EXPECT_NE(checked.json["tests"][1]["status"], 0);
  EXPECT_NE(checked.text.find("FAILED npz_test"), std::string::npos) << checked.text;
}

}  // namespace
}  // namespace gsae::test
