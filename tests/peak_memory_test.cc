// Measured memory is what was planned, to 2 %: the plan leaves nothing out, and what it promises is there.
#include <sstream>

#include "tests/run_binary.h"
#include "tests/sanitized.h"

namespace gsae::test {
namespace {

double gibibytes(const std::string& text, const std::string& before) {
  const size_t at = text.find(before);
  if (at == std::string::npos) throw Error(before + " is not in " + text);
  std::istringstream words(text.substr(at + before.size()));
  double value = 0;
  std::string unit;
  words >> value >> unit;
  return unit.starts_with("GiB") ? value : value / 1024;
}

// Of a run of the demo model with these options, by a few steps of few rows: what they need is there before the first.
void expect_peak_as_planned(std::vector<std::string> options) {
  const TempFolder dir;
  std::vector<std::string> words{"train", "--model", "demo", "--device",  "cpu", "--l0",  "32",       "--batch",
                                 "64",    "--steps", "3",    "--threads", "2",   "--out", dir / "run"};
  words.insert(words.end(), options.begin(), options.end());
  const Outcome o = run_binary(words);
  expect_outcome(o, 0);
  const double planned = gibibytes(o.out, "(planned "), peak = gibibytes(o.out, "peak resident memory ");
  EXPECT_GT(planned, 1.3) << o.out;
  EXPECT_LE(peak, 1.02 * planned) << o.out;
  EXPECT_GE(peak, 0.98 * planned) << o.out;
}

class PeakMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "AddressSanitizer's own memory is no part of the plan";
  }
};

// Almost all is its state, its workspace and its result.
TEST_F(PeakMemory, OfAWideSae) { expect_peak_as_planned({"--layer", "3", "--width", "256k", "--eval-contexts", "0"}); }

// States that add up, of SAEs that are evaluated in what the training gives back.
TEST_F(PeakMemory, OfASuite) {
  expect_peak_as_planned({"--layer", "2,3", "--site", "res,mlp", "--width", "32k,64k", "--eval-contexts", "4"});
}

}  // namespace
}  // namespace gsae::test
