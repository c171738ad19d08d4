#include "sae/recipe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/check.h"

namespace gsae {
namespace {

constexpr double kClose = 1e-15;  // of numbers below 1e-3

// docs/design.md, section 4: times 0.1 + 0.9 (1 - cos(pi min(s/1000, 1)))/2. By hand: 0.1, 0.55 half way, 1.
TEST(Recipe, LearningRateWarmsUpAsACosine) {
  Recipe r;
  r.steps = 10000;
  r.lr = 7e-5;
  r.lr_warmup = 1000;
  EXPECT_NEAR(r.lr_at(0), 7e-6, kClose);
  EXPECT_NEAR(r.lr_at(500), 7e-5 * 0.55, kClose);
  EXPECT_NEAR(r.lr_at(333), 7e-5 * (0.1 + 0.45 * (1 - 0.50090662536)), kClose);  // cos(0.333 pi)
  EXPECT_NEAR(r.lr_at(1000), 7e-5, kClose);
  EXPECT_NEAR(r.lr_at(9999), 7e-5, kClose);
  r.lr_warmup = 0;
  EXPECT_NEAR(r.lr_at(0), 7e-5, kClose);
}

// The last fraction falls linearly, to zero at the step after the last one.
TEST(Recipe, LearningRateDecays) {
  Recipe r;
  r.steps = 1000;
  r.lr = 1e-3;
  r.lr_warmup = 0;
  r.lr_decay = 0.2;
  EXPECT_NEAR(r.lr_at(799), 1e-3, kClose);
  EXPECT_NEAR(r.lr_at(800), 1e-3, kClose);
  EXPECT_NEAR(r.lr_at(900), 0.5e-3, kClose);
  EXPECT_NEAR(r.lr_at(999), 1e-3 / 200, kClose);
}

TEST(Recipe, LambdaRisesLinearly) {
  Recipe r;
  r.lambda_warmup = 10000;
  EXPECT_EQ(r.lambda_scale_at(0), 0);
  EXPECT_NEAR(r.lambda_scale_at(2500), 0.25, kClose);
  EXPECT_EQ(r.lambda_scale_at(10000), 1);
  EXPECT_EQ(r.lambda_scale_at(70000), 1);
  r.lambda_warmup = 0;
  EXPECT_EQ(r.lambda_scale_at(0), 1);
}

// By hand: from a fifth, by equal factors: half way sqrt(1/5).
TEST(Recipe, TargetRisesByEqualFactors) {
  Recipe r;
  r.target_l0 = 400, r.first_l0 = 80, r.l0_warmup = 600;
  EXPECT_EQ(r.target_l0_at(0), 80);
  EXPECT_NEAR(r.target_l0_at(300), 400 / std::sqrt(5), 1e-9);
  EXPECT_EQ(r.target_l0_at(600), 400);
  EXPECT_EQ(r.target_l0_at(1000), 400);
  r.l0_warmup = 0;
  EXPECT_EQ(r.target_l0_at(0), 400);
  r.target_l0 = 0;
  EXPECT_EQ(r.target_l0_at(0), 0);
  EXPECT_EQ(first_l0(400, 16384), 80);
  EXPECT_EQ(first_l0(400, 1600), 200);  // a quarter of the latents: from half
  EXPECT_EQ(first_l0(400, 600), 400);
  EXPECT_EQ(first_l0(32, 4096), 16);
  EXPECT_EQ(first_l0(8, 4096), 8);  // never above the target
  const Recipe d = preset_recipe("default", 1000, 4096, 192);
  EXPECT_EQ(d.l0_warmup, 400);  // well before the last third, in which the L0 is to be what was asked
  EXPECT_EQ(preset_recipe("gemma-scope", 1000, 4096, 192).l0_warmup, 0);
}

// By hand: 0.6 of 192 dimensions are 115.2; at four times that the rate halves, and with 32 times 4096 latents it is a
// quarter of what it would be.
TEST(Recipe, RateOfDenseAndWideSaes) {
  EXPECT_EQ(steady_rate(32, 192, 1024), 1);
  EXPECT_EQ(steady_rate(115, 192, 4096), 1);
  EXPECT_NEAR(steady_rate(460.8, 192, 1024), 0.5, kClose);
  EXPECT_NEAR(steady_rate(460.8, 192, 131072), 0.125, kClose);
  EXPECT_EQ(steady_rate(32, 192, 16384), 1);
  EXPECT_NEAR(steady_rate(28.8, 192, 131072), 0.5, kClose);
  EXPECT_EQ(steady_rate(400, 2304, 4096), 1);
}

// By hand: ln(e^7) = 7.
TEST(Recipe, GainOfTheThresholds) {
  EXPECT_NEAR(threshold_gain(10, 10966), 1 / 7.0, 1e-5);  // e^7 = 1096.6 latents for each
  EXPECT_EQ(threshold_gain(400, 1024), 0.6);
  EXPECT_EQ(threshold_gain(1024, 1024), 0.6);
}

TEST(Recipe, GemmaScopePresets) {
  for (const std::string preset : {"gemma-scope", "gemma-scope-2"}) {
    const Recipe r = preset_recipe(preset, 1000000, 4096, 2304);
    EXPECT_EQ(r.preset, preset);
    EXPECT_EQ(r.steps, 1000000);
    EXPECT_EQ(r.batch, 4096);
    EXPECT_EQ(r.lr, 7e-5);
    EXPECT_EQ(r.lr_warmup, 1000);
    EXPECT_EQ(r.lr_decay, 0);
    EXPECT_EQ(r.beta2, 0.999);
    EXPECT_EQ(r.epsilon, 1e-8);
    EXPECT_EQ(r.bandwidth, 0.001);
    EXPECT_EQ(r.threshold, 0.001);
    EXPECT_EQ(r.start, Recipe::Start::kRandom);
    const bool first = preset == "gemma-scope";
    EXPECT_EQ(r.penalty, first ? Recipe::Penalty::kL0 : Recipe::Penalty::kQuadratic);
    EXPECT_EQ(r.lambda_warmup, first ? 10000 : 50000);
  }
}

// A run too short to hold the warm-ups still spends most of its steps at full rate and full penalty.
TEST(Recipe, WarmUpsShrinkForShortRuns) {
  for (const std::string preset : {"default", "gemma-scope", "gemma-scope-2"})
    for (const int64_t steps : {1, 10, 500, 5000}) {
      const Recipe r = preset_recipe(preset, steps, 4096, 2304);
      EXPECT_LE(r.lr_warmup, steps / 2) << preset << " " << steps;
      EXPECT_LE(r.lambda_warmup, steps / 2) << preset << " " << steps;
      for (int64_t s = 0; s < steps; ++s) ASSERT_GT(r.lr_at(s), 0) << preset << " " << steps << " at " << s;
      EXPECT_LE(r.lr_at(steps - 1), r.lr);
    }
}

TEST(Recipe, AnUnknownPresetIsRefusedWithTheList) {
  try {
    preset_recipe("gemma-scope-3", 1000, 4096, 2304);
    FAIL() << "accepted";
  } catch (const Error& e) {
    for (const char* word : {"gemma-scope-3", "default", "gemma-scope", "gemma-scope-2"})
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace gsae
