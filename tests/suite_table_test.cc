#include "tools/suite_table.h"

#include <gtest/gtest.h>

#include <limits>
#include <sstream>

namespace gsae::test {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

SuiteStatus status(const std::string& name, double target, double l0, double fvu, int64_t dead = 0, double loss = 0.5) {
  StepMetrics m;
  m.rows = 100, m.l0 = l0, m.target_l0 = target, m.fvu = fvu, m.dead = dead, m.loss = loss;
  return {.name = name, .latents = 1000, .metrics = m};
}

TEST(SuiteTable, Trouble) {
  EXPECT_EQ(trouble_of(status("a", 32, 32, 0.1), 1), "");
  EXPECT_EQ(trouble_of(status("a", 32, 32, 0.1, 0, kNaN), 0), "the loss is nan");
  EXPECT_EQ(trouble_of(status("a", 100, 120, 0.1), 1), "");
  EXPECT_EQ(trouble_of(status("a", 100, 121, 0.1), 1), "L0 is 121, not 100");
  EXPECT_EQ(trouble_of(status("a", 100, 79, 0.1), 1), "L0 is 79, not 100");
  EXPECT_EQ(trouble_of(status("a", 100, kNaN, 0.1), 1), "L0 is nan, not 100");
  EXPECT_EQ(trouble_of(status("a", 100, 500, 0.1), 0.33), "");  // it is not there yet
  EXPECT_EQ(trouble_of(status("a", 0, 500, 0.1), 1), "");       // nobody asked for another
  EXPECT_EQ(trouble_of(status("a", 32, 32, 0.1, 200), 0.1), "");
  EXPECT_EQ(trouble_of(status("a", 32, 32, 0.1, 201), 0.1), "20 % of the latents are dead");
  EXPECT_EQ(trouble_of({.name = "a", .latents = 8, .metrics = {}}, 1), "");  // no report yet
}

TEST(SuiteTable, TheLine) {
  std::vector<SuiteStatus> suite{status("a", 32, 32, 0.2, 10), status("b", 32, 16, 0.3, 0),
                                 status("c", 32, 40, 0.1, 31), status("d", 32, 35.2, 0.4, 4)};
  EXPECT_EQ(suite_line(suite, 0.1), "4 SAEs  FVU 0.100/0.300/0.400  L0/target 1.00/1.25/0.50  dead 0.0/1.0/3.1%");
  EXPECT_EQ(suite_line(suite, 0.9),
            "4 SAEs  FVU 0.100/0.300/0.400  L0/target 1.00/1.25/0.50  dead 0.0/1.0/3.1%  2 in trouble: b, ...");
  suite[1].metrics.fvu = kNaN;             // the worst of all
  suite[2].metrics.target_l0 = 0;  // a plain lambda's has no ratio
  EXPECT_EQ(suite_line(suite, 0.9),
            "4 SAEs  FVU 0.100/0.400/nan  L0/target 1.00/1.10/0.50  dead 0.0/1.0/3.1%  1 in trouble: b");
  for (SuiteStatus& s : suite) s.metrics.target_l0 = 0;
  EXPECT_EQ(suite_line(suite, 0.9), "4 SAEs  FVU 0.100/0.400/nan  dead 0.0/1.0/3.1%");
  for (SuiteStatus& s : suite) s.metrics = {};
  EXPECT_EQ(suite_line(suite, 0), "4 SAEs");
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(SuiteTable, TheTable) {
  std::vector<SuiteStatus> suite;
  for (int i = 0; i < 9; ++i) suite.push_back(status("res." + std::to_string(i), 32, 32, 0.1 + 0.01 * ((i * 4) % 9)));
  const auto plain = lines_of(suite_table(suite, 1));
  ASSERT_EQ(plain.size(), 4u);
  EXPECT_EQ(plain[0], "               asked L0        L0       FVU       loss     dead");
  EXPECT_EQ(plain[1], "best    res.0        32     32.00    0.1000        0.5    0.0 %");
  EXPECT_EQ(plain[2], "median  res.1        32     32.00    0.1400        0.5    0.0 %");
  EXPECT_EQ(plain[3], "worst   res.2        32     32.00    0.1800        0.5    0.0 %");
  suite[2].metrics.l0 = 64;  // the worst, named once
  suite[5].metrics.dead = 500;
  const auto trouble = lines_of(suite_table(suite, 1));
  ASSERT_EQ(trouble.size(), 5u);
  EXPECT_EQ(trouble[3], "worst   res.2        32     64.00    0.1800        0.5    0.0 %  L0 is 64, not 32");
  EXPECT_EQ(trouble[4],
            "        res.5        32     32.00    0.1200        0.5   50.0 %  50 % of the latents are dead");
  EXPECT_EQ(lines_of(suite_table({suite.data(), 4}, 1)).size(), 5u);  // few: all of them
  suite[0].metrics = {};
  EXPECT_EQ(lines_of(suite_table({suite.data(), 2}, 1)).size(), 2u);
  EXPECT_EQ(suite_table({suite.data(), 1}, 1), "");
}

}  // namespace
}  // namespace gsae::test
