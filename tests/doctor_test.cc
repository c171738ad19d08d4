#include <gtest/gtest.h>
#include <sys/statvfs.h>

#include <nlohmann/json.hpp>

#include "tests/files.h"
#include "tests/paths.h"
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
  if (available(Device::kCuda)) {
    EXPECT_GT(j["cuda"]["devices"].size(), 0u);
  } else {
    const std::string why = j["cuda"]["why"];
    EXPECT_NE(why.find(why_unavailable(Device::kCuda)), std::string::npos) << why;
    EXPECT_EQ(why.find("GSAE_CUDA=OFF") != why.npos, cuda_backend() == CudaBackend::kNone) << why;
  }
}

// What is missing is what people call a doctor for: said, with what to do, and no failure.
TEST(Doctor, SaysWhatIsMissingAndWhatToDo) {
  const TempFolder empty;
  const Variable hub("HF_HUB_CACHE", empty.path());
  const Variable demo("GSAE_DEMO", empty.path());
  const std::string text = doctor("");
  EXPECT_EQ(text.find("exception"), std::string::npos) << text;
  for (const std::string& part : {std::string("GFLOP/s f32"), std::string("GFLOP/s bf16"), std::string("GB/s"),
                                  why_unavailable(Device::kCuda), std::string("google/gemma-2-2b"),
                                  std::string("download"), std::string("--model demo"), std::string("GiB free")})
    EXPECT_NE(text.find(part), std::string::npos) << part << " is not in:\n" << text;
  const size_t demo_line = text.find("\ndemo ");
  ASSERT_NE(demo_line, std::string::npos);
  EXPECT_EQ(text.substr(demo_line, text.find('\n', demo_line + 1) - demo_line).find("model and corpus in"),
            std::string::npos);
}

TEST(Doctor, ADeviceThatIsNotThereIsAnError) {
  EXPECT_NE(doctor("--device cuda:4000").find("exception"), std::string::npos);
  if (available(Device::kCuda)) return;
  EXPECT_NE(doctor("--device cuda").find("exception"), std::string::npos);
  EXPECT_NE(doctor("--device cuda").find("--device cpu"), std::string::npos);
}

}  // namespace
}  // namespace gsae
