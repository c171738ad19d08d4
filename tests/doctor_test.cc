#include <gtest/gtest.h>
#include <sys/statvfs.h>
#include <CLI/CLI.hpp>

#include <nlohmann/json.hpp>

#include "tests/files.h"
#include "tests/paths.h"
#include "tests/run_binary.h"
#include "tools/options.h"

namespace gsae {
namespace {

using test::TempFolder;

std::string doctor(const std::string& arguments) {
  CLI::App app("", "gemma_sae");
  add_doctor(app);
  testing::internal::CaptureStdout();
  try {
    app.parse("doctor " + arguments, false);
  } catch (const std::exception& e) {
    return testing::internal::GetCapturedStdout() + "exception: " + e.what();
  }
  return testing::internal::GetCapturedStdout();
}

// An environment variable for the time of a test.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old, was_set_ = true;
    setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (was_set_) setenv(name_, old_.c_str(), 1);
    else unsetenv(name_);
  }

 private:
  const char* name_;
  std::string old_;
  bool was_set_ = false;
};

TEST(Doctor, ReportsTheMachineAndFindsModelAndDemo) {
  const TempFolder cache;
  const std::string model = cache / "models--google--gemma-2-2b";
  std::filesystem::create_directories(model + "/refs");
  std::filesystem::create_directories(model + "/snapshots/0123abcd");
  test::write_bytes(model + "/refs/main", "0123abcd");
  test::write_bytes(model + "/snapshots/0123abcd/config.json", "{}");
  const Variable hub("HF_HUB_CACHE", cache.path());
  const Variable demo("GSAE_DEMO", test::demo_data());

  const auto j = nlohmann::json::parse(doctor("--json --threads 1"));
  EXPECT_EQ(j["version"], GSAE_VERSION);
  EXPECT_EQ(j["threads"], 1);
  EXPECT_GT(j["peak_f32_flops"], 1e6);
  EXPECT_GT(j["peak_bf16_flops"], 1e6);
  EXPECT_GT(j["peak_bandwidth_bytes_per_second"], 1e6);
  EXPECT_LE(j["memory_available_bytes"], j["memory_bytes"]);
  EXPECT_EQ(j["model"]["id"], "google/gemma-2-2b");
  EXPECT_EQ(j["model"]["path"], model + "/snapshots/0123abcd");
  EXPECT_EQ(j["demo"]["path"], test::demo_data());
  EXPECT_EQ(j["folder"], std::filesystem::current_path().string());
  struct statvfs disk {};
  ASSERT_EQ(statvfs(".", &disk), 0);
  EXPECT_GT(j["disk_free_bytes"], 0u);
  EXPECT_LE(j["disk_free_bytes"], uint64_t{disk.f_blocks} * disk.f_frsize);
  EXPECT_EQ(j["cuda"]["available"], available(Device::kCuda));
  if (!available(Device::kCuda)) {
    EXPECT_NE(j["cuda"]["why"].get<std::string>().find(why_unavailable(Device::kCuda)), std::string::npos);
    return;
  }
  EXPECT_FALSE(j["cuda"].contains("why"));
  EXPECT_NE(j["cuda"]["versions"].get<std::string>().find("driver"), std::string::npos);
  ASSERT_GE(j["cuda"]["devices"].size(), 1u);
  for (const auto& gpu : j["cuda"]["devices"]) {
    EXPECT_NE(gpu["name"], "");
    EXPECT_GE(gpu["compute_capability"].get<std::string>(), "8.0");
    EXPECT_GT(gpu["multiprocessors"], 0);
    EXPECT_GT(gpu["memory_available_bytes"], 0);
    EXPECT_LE(gpu["memory_available_bytes"], gpu["memory_bytes"]);
  }
}

// One line for each GPU; without any, why.
TEST(Doctor, ListsTheGpus) {
  const std::string text = doctor("--threads 1"), why = why_unavailable(Device::kCuda);
  if (!why.empty()) {
    EXPECT_NE(text.find(why + "; everything runs on the CPU"), std::string::npos) << text;
    return;
  }
  for (const char* part : {"\ncuda:0 ", "compute capability", "multiprocessors", "cuBLASLt"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in:\n" << text;
  EXPECT_EQ(doctor("--device cuda --threads 1").find("exception"), std::string::npos);
}

TEST(Doctor, ListsEveryEmulatedGpu) {
  if (cuda_backend() != CudaBackend::kEmulated) GTEST_SKIP() << "a machine has the GPUs that it has";
  const auto o =
      test::run_binary({"doctor", "--json", "--threads", "1", "--device", "cuda:1"}, {{"GSAE_EMULATED_GPUS", "2"}});
  EXPECT_EQ(nlohmann::json::parse(o.out)["cuda"]["devices"].size(), 2u) << o.err;
}

// What is missing is what people call a doctor for: said, with what to do, and no failure.
TEST(Doctor, SaysWhatIsMissingAndWhatToDo) {
  const TempFolder empty;
  const Variable hub("HF_HUB_CACHE", empty.path());
  const Variable demo("GSAE_DEMO", empty.path());
  const std::string text = doctor("");
  EXPECT_EQ(text.find("exception"), std::string::npos) << text;
  for (const char* part :
       {"GFLOP/s f32", "GFLOP/s bf16", "GB/s", "\nCUDA  ", "google/gemma-2-2b", "download", "--model demo", "GiB free"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in:\n" << text;
  const size_t demo_line = text.find("\ndemo ");
  ASSERT_NE(demo_line, std::string::npos);
  EXPECT_EQ(text.substr(demo_line, text.find('\n', demo_line + 1) - demo_line).find("model and corpus in"),
            std::string::npos);
}

TEST(Doctor, ADeviceThatIsNotThereIsAnError) {
  const Variable none("GSAE_EMULATED_GPUS", "0");
  if (cuda_backend() == CudaBackend::kGpu && available(Device::kCuda)) GTEST_SKIP() << "it is there";
  EXPECT_NE(doctor("--device cuda").find("exception"), std::string::npos);
  EXPECT_NE(doctor("--device cuda").find("--device cpu"), std::string::npos);
}

}  // namespace
}  // namespace gsae
