#include "tools/suite.h"

#include "tests/files.h"
#include "tools/options.h"
#include "tools/train_options.h"

namespace gsae::test {
namespace {

std::vector<std::string> names(std::span<const SuiteMember> suite) {
  std::vector<std::string> list;
  for (const SuiteMember& m : suite) list.push_back(m.name());
  return list;
}

TrainOptions options() {
  TrainOptions o;
  o.layer = "3", o.width = "4k", o.steps = "1000", o.batch = "512";
  return o;
}

TEST(Suite, TheProductInTheOrderOfTheModel) {
  const std::vector<SuiteMember> suite = make_suite({.layers = {4, 0},
                                                     .sites = {Site::kRes, Site::kAtt, Site::kMlp},
                                                     .widths = {16384, 1000},
                                                     .l0s = {80, 40.5},
                                                     .lambdas = {}});
  ASSERT_EQ(suite.size(), 24u);
  const std::vector<std::string> all = names(suite);
  EXPECT_EQ((std::vector(all.begin(), all.begin() + 6)),
            (std::vector<std::string>{"att.0/1000/l0_40.5", "att.0/1000/l0_80", "att.0/16k/l0_40.5", "att.0/16k/l0_80",
                                      "mlp.0/1000/l0_40.5", "mlp.0/1000/l0_80"}));
  EXPECT_EQ(all[11], "res.0/16k/l0_80");
  EXPECT_EQ(all[12], "att.4/1000/l0_40.5");
  EXPECT_EQ(all[23], "res.4/16k/l0_80");
  EXPECT_EQ(count_places(suite), 6);
  EXPECT_EQ(count_sites(suite), 3);
  EXPECT_EQ(suite_name(suite), "att+mlp+res_layer_0-4_width_1000-16k_l0_40.5-80");
}

// Two SAEs of a suite differ in their names, however near to each other what was asked for is.
TEST(Suite, Names) {
  const SuiteMember m{.site = Site::kRes, .layer = 3, .latents = 4096, .l0 = 32};
  EXPECT_EQ(m.name(), "res.3/4k/l0_32");
  EXPECT_EQ(suite_name({&m, 1}), "res_layer_3_width_4k_l0_32");
  const auto lambdas = make_suite({{3}, {Site::kRes}, {1 << 20}, {}, {6e-4, 0.00060000001}});
  EXPECT_EQ(names(lambdas), (std::vector<std::string>{"res.3/1m/lambda_0.0006", "res.3/1m/lambda_0.00060000001"}));
  EXPECT_EQ(suite_name(lambdas), "res_layer_3_width_1m_lambda_0.0006-0.00060000001");
  const auto both = make_suite({{3}, {Site::kMlp}, {4096}, {8, 16}, {0.5}});
  EXPECT_EQ(names(both), (std::vector<std::string>{"mlp.3/4k/l0_8_lambda_0.5", "mlp.3/4k/l0_16_lambda_0.5"}));
  EXPECT_EQ(suite_name(both), "mlp_layer_3_width_4k_l0_8-16_lambda_0.5");
  EXPECT_EQ((SuiteMember{.site = Site::kRes, .layer = 0, .latents = 8}.name()), "res.0/8/lambda_0");
}

TEST(Suite, AtMost4096) {
  SuiteLists lists{.layers = {}, .sites = {Site::kRes}, .widths = {8}, .l0s = {2}, .lambdas = {}};
  for (int64_t i = 0; i < kMostSaes; ++i) lists.layers.push_back(i);
  EXPECT_EQ(make_suite(lists).size(), size_t(kMostSaes));
  lists.l0s = {2, 3};
  EXPECT_ERROR(make_suite(lists), "4096 x 1 x 1 x 2 = 8192 SAEs");
}

TEST(TrainPlan, ListsAreTheirProductEachOnce) {
  TrainOptions o = options();
  o.layer = "2-3,0,3", o.site = "res,att", o.width = "4k,4096", o.l0 = "32,16,32.0";
  const TrainPlan plan = plan_training(o);
  EXPECT_EQ(names(plan.members),
            (std::vector<std::string>{"att.0/4k/l0_16", "att.0/4k/l0_32", "res.0/4k/l0_16", "res.0/4k/l0_32",
                                      "att.2/4k/l0_16", "att.2/4k/l0_32", "res.2/4k/l0_16", "res.2/4k/l0_32",
                                      "att.3/4k/l0_16", "att.3/4k/l0_32", "res.3/4k/l0_16", "res.3/4k/l0_32"}));
  EXPECT_EQ(plan.steps, 1000);
  EXPECT_EQ(plan.batch, 512);
  EXPECT_EQ(plan.tokens, 512000);
  EXPECT_EQ(plan.passes, 1);
  o = options();
  EXPECT_EQ(names(plan_training(o).members), (std::vector<std::string>{"res.3/4k/l0_80"}));
  o.passes = "auto";
  EXPECT_EQ(plan_training(o).passes, 0);
}

TEST(TrainPlan, TheRecipeOfEach) {
  TrainOptions o = options();
  o.l0 = "16,64";
  TrainPlan plan = plan_training(o);
  ASSERT_EQ(plan.members.size(), 2u);
  const Recipe first = member_recipe(o, plan, plan.members[0], 192),
               second = member_recipe(o, plan, plan.members[1], 768);
  EXPECT_EQ(first.target_l0, 16);
  EXPECT_EQ(second.target_l0, 64);
  EXPECT_TRUE(first.controller && second.controller);
  EXPECT_EQ(first.first_l0, 16);
  EXPECT_EQ(second.first_l0, 16);
  EXPECT_EQ(first.l0_warmup, 400);
  EXPECT_EQ(first.start_l0, 32);  // twice the first target
  EXPECT_EQ(second.start_l0, 32);
  EXPECT_EQ(first.lr, 2 * second.lr);  // sqrt(768 / 192)
  EXPECT_EQ(first.steps, 1000);
  EXPECT_EQ(first.batch, 512);

  o.sparsity_warmup = "100";
  EXPECT_EQ(member_recipe(o, plan, plan.members[0], 192).l0_warmup, 100);
  EXPECT_EQ(member_recipe(o, plan, plan.members[0], 192).lambda_warmup, 0);
  o.sparsity_warmup = "1001";
  EXPECT_ERROR(plan_training(o), "would still rise when the run ends, after 1000 steps");
  o.sparsity_warmup = "0";
  EXPECT_EQ(member_recipe(o, plan, plan.members[1], 192).start_l0, 128);
  o.sparsity_warmup = "";

  o.l0 = "", o.lambda = "1e-3,2e-3", o.preset = "gemma-scope";
  plan = plan_training(o);
  ASSERT_EQ(plan.members.size(), 2u);
  const Recipe plain = member_recipe(o, plan, plan.members[1], 192);
  EXPECT_EQ(plain.lambda, 2e-3);
  EXPECT_EQ(plain.target_l0, 0);
  EXPECT_EQ(plain.l0_warmup, 0);
  EXPECT_FALSE(plain.controller);

  o.preset = "gemma-scope-2", o.lambda = "0.5", o.l0 = "16,64";  // one list beside one value
  plan = plan_training(o);
  ASSERT_EQ(plan.members.size(), 2u);
  const Recipe quadratic = member_recipe(o, plan, plan.members[1], 192);
  EXPECT_EQ(quadratic.lambda, 0.5);
  EXPECT_EQ(quadratic.target_l0, 64);
  EXPECT_EQ(quadratic.target_l0_at(0), 64);
  EXPECT_FALSE(quadratic.controller);
  o.l0 = "";  // the default target, and the coefficient that was given
  plan = plan_training(o);
  EXPECT_EQ(member_recipe(o, plan, plan.members[0], 192).target_l0, 80);
}

// Of one SAE all, as before; many share out about 2048 passes.
TEST(TrainPlan, ContextsOfTheLosses) {
  TrainOptions o = options();
  EXPECT_EQ(plan_training(o).loss_contexts, 2048);
  o.layer = "0-15";
  EXPECT_EQ(plan_training(o).loss_contexts, 128);
  o.layer = "0-99";
  EXPECT_EQ(plan_training(o).loss_contexts, 32);
  o.eval_contexts = 20;
  EXPECT_EQ(plan_training(o).loss_contexts, 20);
  o.eval_contexts = 500, o.eval_loss_contexts = "100";
  EXPECT_EQ(plan_training(o).loss_contexts, 100);
  o.eval_loss_contexts = "2k";
  EXPECT_EQ(plan_training(o).loss_contexts, 500);
  o.eval_loss_contexts = "0";
  EXPECT_EQ(plan_training(o).loss_contexts, 0);
}

// Every ten steps, until the lines of all SAEs together would be too many.
TEST(TrainPlan, LinesOfTheLog) {
  TrainOptions o = options();
  o.tokens = "", o.steps = "50000";
  EXPECT_EQ(plan_training(o).log_every, 10);
  o.steps = "1000001";
  EXPECT_EQ(plan_training(o).log_every, 21);
  o.layer = "0-15";
  EXPECT_EQ(plan_training(o).log_every, 321);
  o.log_every = 1;
  EXPECT_EQ(plan_training(o).log_every, 1);
}

TEST(TrainPlan, CheckpointsWithoutRowsAreOfText) {
  TrainOptions o = options();
  o.checkpoint_buffer = "none";
  EXPECT_NO_THROW(plan_training(o));
  o.activations = "a.safetensors";
  EXPECT_ERROR(plan_training(o), "--checkpoint-buffer none");
}

TEST(TrainPlan, SavedActivationsAreOfOnePlace) {
  TrainOptions o = options();
  o.activations = "a.safetensors", o.width = "1k,4k", o.l0 = "8,16";
  EXPECT_EQ(plan_training(o).members.size(), 4u);
  o.init = "init.safetensors";
  EXPECT_ERROR(plan_training(o), "--init");
  o.width = "4k";
  EXPECT_EQ(plan_training(o).members.size(), 2u);
  o.layer = "2,3";
  EXPECT_ERROR(plan_training(o), "one layer and one site");
}

}  // namespace
}  // namespace gsae::test
