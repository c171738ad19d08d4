#include "kernels/latent_update.h"

#include "kernels/graph.h"
#include "tests/latent_fixture.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct UpdateLatents : OnDevice {
  Guarded clock(int64_t t) { return on_device(ctx, std::vector<int64_t>{t}); }
};
ON_DEVICES(UpdateLatents);

// By hand, with beta2 = 0 and epsilon = 0, where Adam's step is lr times the sign. The decoder: W = (0.6, 0.8),
// g = (1, 0); the component along the row is 0.6, which leaves (0.64, -0.48): (0.6 - 0.1, 0.8 + 0.1), of norm
// sqrt(1.06). The second latent's threshold would become negative.
TEST_P(UpdateLatents, WorkedExample) {
  PerLatent<float> p(2, 2), g(2, 2);
  p.W_dec = {0.6f, 0.8f, 1, 0}, g.W_dec = {1, 0, 3, 0};
  p.W_enc = {1, -1, 0, 5}, g.W_enc = {2, -3, 0, -1};
  p.b_enc = {0.5f, 0.5f}, g.b_enc = {-1, 0};
  p.threshold = {0.5f, 0.05f}, g.threshold = {7, 7};
  GuardedState s(ctx, 2, 2, p, PerLatent<float>(2, 2), {0, 0});
  update_latents(ctx, s.state(), GuardedLatents(ctx, 2, 2, g), Rates{0.1f, 0, 1}.on(ctx), clock(1),
                 {.epsilon = 1e-30f});
  const auto got = s.p.read(), v = s.v.read();
  expect_close(got.W_dec, std::vector{0.5 / std::sqrt(1.06), 0.9 / std::sqrt(1.06), 1., 0.}, 8 * kUnit);
  expect_close(got.W_enc, std::vector{0.9, -0.9, 0., 5.1}, 4 * kUnit);
  expect_close(got.b_enc, std::vector{0.6, 0.5}, 4 * kUnit);
  expect_close(got.threshold, std::vector{0.4, 0.}, 4 * kUnit);
  expect_close(v.W_dec, std::vector{0.64 * 0.64, 0.48 * 0.48, 0., 0.}, 16 * kUnit);
  EXPECT_EQ(v.W_enc, (std::vector<float>{4, 9, 0, 1}));
  EXPECT_EQ(v.b_enc, (std::vector<float>{1, 0}));
  EXPECT_EQ(v.threshold, (std::vector<float>{49, 49}));
  EXPECT_EQ(download<int64_t>(ctx, s.stamp), (std::vector<int64_t>{1, 1}));
}

struct Shape {
  int64_t latents, d;
};
// A warp for each latent, a block with one vector in a thread, with three, and rows of any length: the ends of each.
const Shape kShapes[] = {{1, 1},    {3, 7},    {6, 32},   {37, 192}, {2, 256},  {3, 260},  {2, 1024},
                         {2, 1028}, {3, 2304}, {2, 2305}, {1, 4608}, {2, 6144}, {1, 6148}, {17, 64}};

// Against the same in doubles, with latents that sat out steps. v starts at 1/4 or more and keeps three quarters of it,
// so that an error of the projected gradient moves w by at most 2 factor lr times that error, which is
// (d + 3) u (|g| . |W|) |W_c| + 2 u |g_c|; below, |W_c| <= 1 and |g_c| <= 1. Rounding and the norm add 8 u, and the
// power of beta2 2 ulp (cuda: 4) to v.
TEST_P(UpdateLatents, MatchesDoubles) {
  const Rates rates{0.05f, 0.95f, 6, 0.8f};
  const LatentUpdateOptions options{.epsilon = 1e-8f, .decoder_rate = 0.5f, .threshold_rate = 0.25f};
  for (const auto [latents, d] : kShapes) {
    SCOPED_TRACE(d);
    const auto p0 = random_parameters(latents, d, 1), v0 = uniform_latents(latents, d, 11, 0.25f, 1),
               g = uniform_latents(latents, d, 21, -1, 1);
    std::vector<int64_t> stamps(latents);
    for (int64_t i = 0; i < latents; ++i) stamps[i] = 5 - i % 5;
    PerLatent<double> p(p0), v(v0), bound(latents, d, 12 * kUnit), moment_bound(latents, d, 16 * kUnit);
    for (int64_t i = 0; i < latents; ++i) {
      double along = 0;
      for (int64_t c = i * d; c < (i + 1) * d; ++c) along += std::fabs(double(g.W_dec[c]) * p0.W_dec[c]);
      for (int64_t c = i * d; c < (i + 1) * d; ++c) {
        const double error = (double(d + 3) * along + 2) * kUnit;
        bound.W_dec[c] += double(rates.lr) * error;
        moment_bound.W_dec[c] += (1 - double(rates.beta2)) * 2 * (1 + along) * error;
      }
      step_in_doubles(p, v, PerLatent<double>(g), i, stamps[i], rates, options);
    }
    for (const bool copies : {true, false}) {
      GuardedState s(ctx, latents, d, p0, v0, stamps, copies);
      update_latents(ctx, s.state(), GuardedLatents(ctx, latents, d, g), rates.on(ctx), clock(rates.t), options);
      const auto got = s.p.read(), moment = s.v.read();
      expect_close(got.W_enc, p.W_enc, 0, 1, bound.W_enc);
      expect_close(got.W_dec, p.W_dec, 0, 1, bound.W_dec);
      expect_close(got.b_enc, p.b_enc, 0, 1, bound.b_enc);
      expect_close(got.threshold, p.threshold, 0, 1, bound.threshold);
      expect_close(moment.W_enc, v.W_enc, 0, 1, moment_bound.W_enc);
      expect_close(moment.W_dec, v.W_dec, 0, 1, moment_bound.W_dec);
      expect_close(moment.b_enc, v.b_enc, 0, 1, moment_bound.b_enc);
      expect_close(moment.threshold, v.threshold, 0, 1, moment_bound.threshold);
      EXPECT_EQ(download<int64_t>(ctx, s.stamp), std::vector<int64_t>(latents, rates.t));
      EXPECT_EQ(s.W_enc16.read(), in_bf16(copies ? got.W_enc : p0.W_enc));
      EXPECT_EQ(s.W_dec16.read(), in_bf16(copies ? got.W_dec : p0.W_dec));
      expect_unit_rows(got.W_dec, d);
    }
  }
}

// The decoder and the thresholds have rates of their own: a factor of the common one, here a power of two, so exact.
TEST_P(UpdateLatents, RatesOfTheirOwn) {
  const int64_t latents = 3, d = 20;
  const auto p0 = random_parameters(latents, d, 1), g = uniform_latents(latents, d, 21, -1, 1);
  const auto run = [&](float lr, LatentUpdateOptions options) {
    GuardedState s(ctx, latents, d, p0, PerLatent<float>(latents, d), std::vector<int64_t>(latents));
    update_latents(ctx, s.state(), GuardedLatents(ctx, latents, d, g), Rates{lr, 0.9f, 1}.on(ctx), clock(1), options);
    return s.p.read();
  };
  const auto once = run(0.01f, {}), fourfold = run(0.04f, {}), decoder = run(0.01f, {.decoder_rate = 4}),
             threshold = run(0.01f, {.threshold_rate = 4});
  EXPECT_EQ(decoder.W_dec, fourfold.W_dec);
  EXPECT_EQ(decoder.threshold, once.threshold);
  EXPECT_EQ(threshold.threshold, fourfold.threshold);
  EXPECT_EQ(threshold.W_dec, once.W_dec);
  for (const auto& other : {decoder, threshold}) {
    EXPECT_EQ(other.W_enc, once.W_enc);
    EXPECT_EQ(other.b_enc, once.b_enc);
  }
}

TEST_P(UpdateLatents, RowsKeepUnitNorm) {
  const int64_t latents = 19, d = 192;
  GuardedState s(ctx, latents, d, random_parameters(latents, d, 1), PerLatent<float>(latents, d),
                 std::vector<int64_t>(latents));
  for (int t = 1; t <= 30; ++t)
    update_latents(ctx, s.state(), GuardedLatents(ctx, latents, d, uniform_latents(latents, d, 10 * t, -1, 1)),
                   Rates{0.01f, 0.99f, t}.on(ctx), clock(t), {});
  expect_unit_rows(s.p.read().W_dec, d);
}

// In one dimension all of the gradient is along the row: nothing is left to move it, or to enter v.
TEST_P(UpdateLatents, AlongTheRowNothingMoves) {
  PerLatent<float> p(2, 1), g(2, 1);
  p.W_dec = {1, -1}, g.W_dec = {5, 7};
  GuardedState s(ctx, 2, 1, p, PerLatent<float>(2, 1), {0, 0});
  update_latents(ctx, s.state(), GuardedLatents(ctx, 2, 1, g), Rates{0.1f, 0.9f, 1}.on(ctx), clock(1), {});
  EXPECT_EQ(s.p.read(), p);
  EXPECT_EQ(s.v.read(), PerLatent<float>(2, 1));
}

// A pruned latent (a row of zeros without gradient) must not become NaN, nor a NaN anything else.
TEST_P(UpdateLatents, ZeroRowsAndNan) {
  for (const int64_t d : {20, 300, 2304, 33}) {
    auto p = random_parameters(3, d, 1), g = uniform_latents(3, d, 21, -1, 1);
    for (int64_t c = 0; c < d; ++c) p.W_dec[d + c] = g.W_dec[d + c] = 0;
    for (auto* x : {&g.W_dec, &g.W_enc}) (*x)[2 * d + 3] = std::nanf("");
    g.b_enc[2] = g.threshold[2] = std::nanf("");
    g.threshold[1] = HUGE_VALF;
    GuardedState s(ctx, 3, d, p, PerLatent<float>(3, d), {0, 0, 0});
    update_latents(ctx, s.state(), GuardedLatents(ctx, 3, d, g), Rates{0.1f, 0.9f, 1}.on(ctx), clock(1), {});
    const auto got = s.p.read();
    for (int64_t c = 0; c < d; ++c) {
      ASSERT_TRUE(std::isfinite(got.W_dec[c]));
      ASSERT_EQ(got.W_dec[d + c], 0.0f);
      ASSERT_TRUE(std::isnan(got.W_dec[2 * d + c]));  // through the row's norm
      ASSERT_EQ(std::isnan(got.W_enc[2 * d + c]), c == 3);
    }
    EXPECT_TRUE(std::isnan(got.b_enc[2]));
    EXPECT_TRUE(std::isnan(got.threshold[1]) && std::isnan(got.threshold[2]));
  }
}

// Sitting out k steps is the same as k steps without gradient, which move nothing. v differs by the k roundings of the
// one and those of the power in the other.
TEST_P(UpdateLatents, SittingOutIsNoGradient) {
  const int64_t latents = 5, d = 24;
  const auto p0 = random_parameters(latents, d, 1), v0 = uniform_latents(latents, d, 11, 0.25f, 1),
             g = uniform_latents(latents, d, 21, -1, 1);
  for (const int k : {1, 2, 40}) {
    const auto at = [&](int64_t t) { return Rates{0.05f, 0.999f, t}; };
    const std::vector<int64_t> stamps(latents, 3);
    GuardedState sat_out(ctx, latents, d, p0, v0, stamps), in_step(ctx, latents, d, p0, v0, stamps);
    for (int64_t t = 4; t < 4 + k; ++t)
      update_latents(ctx, in_step.state(), GuardedLatents(ctx, latents, d, PerLatent<float>(latents, d)), at(t).on(ctx),
                     clock(t), {});
    EXPECT_EQ(in_step.p.read().W_enc, p0.W_enc);
    EXPECT_EQ(in_step.p.read().threshold, p0.threshold);
    for (GuardedState* s : {&sat_out, &in_step})
      update_latents(ctx, s->state(), GuardedLatents(ctx, latents, d, g), at(4 + k).on(ctx), clock(4 + k), {});
    const auto a = sat_out.p.read(), b = in_step.p.read(), va = sat_out.v.read(), vb = in_step.v.read();
    expect_close(va.W_enc, vb.W_enc, (k + 8) * kUnit);
    expect_close(va.W_dec, vb.W_dec, (k + 60) * kUnit);  // k renormalisations of W_dec in between
    expect_close(va.b_enc, vb.b_enc, (k + 8) * kUnit);
    expect_close(va.threshold, vb.threshold, (k + 8) * kUnit);
    expect_close(a.W_enc, b.W_enc, 2 * kUnit, 0.1 * (k + 8) * kUnit);  // |update| < 0.1
    expect_close(a.W_dec, b.W_dec, 2 * kUnit, (k + 60) * kUnit);
    expect_close(a.b_enc, b.b_enc, 2 * kUnit, 0.1 * (k + 8) * kUnit);
    expect_close(a.threshold, b.threshold, 2 * kUnit, 0.1 * (k + 8) * kUnit);
  }
}

TEST_P(UpdateLatents, SameBitsEveryTime) {
  for (const auto [latents, d] : {Shape{53, 72}, Shape{35, 70}}) {
    PerLatent<float> first;
    for (const int count : {1, 2, 3}) {
      const Threads threads(count);
      GuardedState s(ctx, latents, d, random_parameters(latents, d, 1), uniform_latents(latents, d, 11, 0, 1),
                     std::vector<int64_t>(latents, 2));
      update_latents(ctx, s.state(), GuardedLatents(ctx, latents, d, uniform_latents(latents, d, 21, -1, 1)),
                     Rates{0.1f, 0.9f, 9}.on(ctx), clock(9), {});
      if (count == 1) first = s.p.read();
      else EXPECT_EQ(s.p.read(), first) << count << " threads";
    }
  }
}

// Rates, clock and gradients are read from device memory when the graph is replayed.
TEST_P(UpdateLatents, InAGraph) {
  const int64_t latents = 9, d = 36;
  const auto p0 = random_parameters(latents, d, 1);
  const PerLatent<float> zeros(latents, d);
  GuardedState one_by_one(ctx, latents, d, p0, zeros, std::vector<int64_t>(latents)),
      graphed(ctx, latents, d, p0, zeros, std::vector<int64_t>(latents));
  GuardedLatents g(ctx, latents, d, uniform_latents(latents, d, 21, -1, 1));
  Guarded r(ctx, DType::kF32, {kRates}), now(ctx, DType::kI64, {1});
  Graph graph;
  for (int64_t t = 1; t <= 5; ++t) {
    copy(ctx, r, Rates{0.1f / float(t), 0.9f, t}.on(ctx));
    upload<int64_t>(ctx, now, {t});
    update_latents(ctx, one_by_one.state(), g, r, now, {});
    graph.run(ctx, [&] { update_latents(ctx, graphed.state(), g, r, now, {}); });
    EXPECT_EQ(graphed.p.read(), one_by_one.p.read());
  }
}

TEST_P(UpdateLatents, RefusesWrongOperands) {
  const int64_t latents = 3, d = 4;
  GuardedState s(ctx, latents, d, random_parameters(latents, d, 1), PerLatent<float>(latents, d), {0, 0, 0});
  GuardedLatents g(ctx, latents, d, PerLatent<float>(latents, d)), few(ctx, 2, d, PerLatent<float>(2, d));
  const Guarded r = Rates{0.1f, 0.9f, 1}.on(ctx), now = clock(1), bad(ctx, DType::kF32, {2}),
                narrow(ctx, DType::kBF16, {latents, d});
  EXPECT_NO_THROW(update_latents(ctx, s.state(), g, r, now, {}));
  EXPECT_THROW(update_latents(ctx, s.state(), few, r, now, {}), Error);
  EXPECT_THROW(update_latents(ctx, s.state(), g, bad, now, {}), Error);
  EXPECT_THROW(update_latents(ctx, s.state(), g, r, bad, {}), Error);
  const auto refused = [&](auto&& change) {
    LatentState wrong = s.state();
    change(wrong);
    EXPECT_THROW(update_latents(ctx, wrong, g, r, now, {}), Error);
  };
  refused([&](LatentState& w) { w.v = few; });
  refused([&](LatentState& w) { w.p = few; });
  refused([&](LatentState& w) { w.p.W_enc = bad; });
  refused([&](LatentState& w) { w.p.W_dec = narrow; });
  refused([&](LatentState& w) { w.p.b_enc = bad; });
  refused([&](LatentState& w) { w.v.threshold = bad; });
  refused([&](LatentState& w) { w.W_enc16 = w.p.W_enc; });
  refused([&](LatentState& w) { w.W_dec16 = bad; });
  refused([&](LatentState& w) { w.stamp = w.p.b_enc; });
}

}  // namespace
}  // namespace gsae::test
