#include "tools/run_record.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace gsae::test {
namespace {

TEST(RunRecord, WhatTheSaesShareAndWhatIsTheirOwn) {
  gsae::Run run;  // a Test has a Run() too
  run.options.layer = "3", run.options.site = "att,res", run.options.width = "4k", run.options.l0 = "16";
  run.options.steps = "100", run.options.batch = "512", run.options.common.seed = 5;
  run.options.sae_step = "sparse", run.options.passes = "2";
  run.plan = plan_training(run.options);
  run.model_folder = "somewhere";
  std::vector<SaeRecord> records;
  for (const SuiteMember& m : run.plan.members) {
    const int64_t d = m.site == Site::kAtt ? 256 : 192;
    records.push_back({m, d, m.site == Site::kAtt ? 1.5 : 2.5, member_recipe(run.options, run.plan, m, d)});
  }
  const auto j = config_json(run, records, 12345);
  EXPECT_EQ(j.at("preset"), "default");
  EXPECT_EQ(j.at("steps"), 100);
  EXPECT_EQ(j.at("batch"), 512);
  EXPECT_EQ(j.at("tokens"), 51200);
  EXPECT_EQ(j.at("passes"), "2");
  EXPECT_EQ(j.at("sae_step"), "sparse");
  EXPECT_EQ(j.at("buffer_rows"), 12345);
  EXPECT_EQ(j.at("seed"), 5);
  EXPECT_EQ(j.at("eval_loss_contexts"), 1024);
  ASSERT_EQ(j.at("saes").size(), 2u);
  EXPECT_EQ(j.at("saes")[0].at("name"), "att.3/4k/l0_16");
  EXPECT_EQ(j.at("saes")[0].at("site"), "att");
  EXPECT_EQ(j.at("saes")[0].at("width"), 256);
  EXPECT_EQ(j.at("saes")[0].at("latents"), 4096);
  EXPECT_EQ(j.at("saes")[0].at("input_scale"), 1.5);
  EXPECT_EQ(j.at("saes")[1].at("name"), "res.3/4k/l0_16");
  EXPECT_EQ(j.at("saes")[1].at("layer"), 3);
  EXPECT_EQ(j.at("saes")[1].at("input_scale"), 2.5);
  EXPECT_EQ(j.at("saes")[1].at("recipe").at("target_l0"), 16);
  EXPECT_EQ(j.at("saes")[1].at("recipe").at("lr"), records[1].recipe.lr);
  EXPECT_NE(j.at("saes")[0].at("recipe").at("lr"), records[1].recipe.lr);

  StepMetrics m;
  m.l0 = 15;
  const auto line = metrics_json("att.3/4k/l0_16", 10, 512, m);
  EXPECT_EQ(line.at("sae"), "att.3/4k/l0_16");
  EXPECT_EQ(line.at("step"), 10);
  EXPECT_EQ(line.at("tokens"), 5120);
  EXPECT_EQ(line.at("l0"), 15);
}

}  // namespace
}  // namespace gsae::test
