// Measured memory is what was planned, to 2 %: the plan leaves nothing out, and what it promises is there.
#include <sstream>

#include "tests/run_binary.h"

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

// A wide SAE on the demo model: almost all is its state, its workspace and its result. Few steps of few rows, to be
// quick; what they need is there before the first.
TEST(PeakMemory, IsThatOfThePlan) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "AddressSanitizer's own memory is no part of the plan";
#endif
  const TempFolder dir;
  const Outcome o = run_binary({"train", "--model",   "demo", "--device", "cpu",      "--layer", "3", "--width",
                                "256k",  "--l0",      "32",   "--batch",  "64",       "--steps", "3", "--eval-contexts",
                                "0",     "--threads", "2",    "--out",    dir / "run"});
  expect_outcome(o, 0);
  const double planned = gibibytes(o.out, "(planned "), peak = gibibytes(o.out, "peak resident memory ");
  EXPECT_GT(planned, 1.3) << o.out;
  EXPECT_LE(peak, 1.02 * planned) << o.out;
  EXPECT_GE(peak, 0.98 * planned) << o.out;
}

}  // namespace
}  // namespace gsae::test
