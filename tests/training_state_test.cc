// The record of a checkpoint, read back, and those that no run can have written.
#include "tools/training_state.h"

#include <nlohmann/json.hpp>

#include "tests/files.h"

namespace gsae::test {
namespace {

TrainingState state() {
  TrainingState s;
  s.passes = {{{0}, 640, 2}, {{1}, 700, 2}};
  s.device = "cpu";
  s.inputs = {{"data.jsonl", 12, ~uint64_t{0}}};
  s.results = {{0, 8.5, 0.25, 3}};
  s.pass = 2, s.step = 7, s.filled = true, s.log_bytes = 99;
  s.order.draws = ~uint64_t{0} - 1;
  s.scales = {1.5};
  s.saes.resize(1);
  s.saes[0].progress = {true, 8.5, 64, 32, 10, 6};
  return s;
}

TEST(TrainingState, ComesBack) {
  const nlohmann::json j = nlohmann::json::parse(to_json(state()).dump());
  const TrainingState s = training_state(j, "x");
  EXPECT_EQ(nlohmann::json::parse(to_json(s).dump()), j);
  EXPECT_EQ(s.inputs[0].hash, ~uint64_t{0});
  EXPECT_EQ(s.saes[0].progress.reviewed_l0, 8.5);
  EXPECT_NO_THROW(check_fits(s, 2, "x"));
}

TEST(TrainingState, NumbersOfAnotherKind) {
  for (const nlohmann::json& step : {nlohmann::json(1e300), nlohmann::json(1.5), nlohmann::json(true),
                                     nlohmann::json(~uint64_t{0}), nlohmann::json("7"), nlohmann::json()}) {
    nlohmann::json j = nlohmann::json::parse(to_json(state()).dump());
    j["step"] = step;
    EXPECT_ERROR(training_state(j, "x"), "no record of a training run");
  }
  nlohmann::json j = nlohmann::json::parse(to_json(state()).dump());
  j["passes"][0]["saes"][0] = -1;
  EXPECT_ERROR(training_state(j, "x"), "-1 is not a whole number");
}

TEST(TrainingState, WhatNoRunHas) {
  const auto broken = [](auto&& change) {
    TrainingState s = state();
    change(s);
    return error_of([&] { check_fits(s, 2, "x"); });
  };
  EXPECT_NE(broken([](auto& s) { s.passes[1].saes = {0}; }).find("each of the run's 2 SAEs once"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.passes[1].saes = {2}; }).find("each of the run's 2 SAEs once"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.passes.pop_back(); }).find("does not fit"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.passes[0].buffer_rows = int64_t{1} << 40; }).find("rows of the buffer"),
            std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.passes[0].contexts = int64_t{1} << 40; }).find("contexts"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.pass = 4; }).find("pass 4 of 2"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.step = -1; }).find("step is -1"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.saes[0].progress.last_step = 8; }).find("last_step is 8"), std::string::npos);
  EXPECT_NE(broken([](auto& s) { s.saes[0].progress.sparse_rows = 65; }).find("sparse_rows"), std::string::npos);
}

}  // namespace
}  // namespace gsae::test
