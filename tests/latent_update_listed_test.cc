#include "kernels/latent_update.h"

#include "kernels/graph.h"
#include "kernels/jump_relu.h"
#include "kernels/matmul.h"
#include "tests/entries_fixture.h"
#include "tests/latent_fixture.h"
#include "tests/threads.h"

namespace gsae::test {
namespace {

struct UpdateListedLatents : OnDevice {
  Guarded clock(int64_t t) { return on_device(ctx, std::vector<int64_t>{t}); }
};
ON_DEVICES(UpdateListedLatents);

struct ListedShape {
  int64_t n, latents, d;
  double density;
  int64_t spare = 3;  // room in the lists
};

// One step's data, and what both ways of the step make of it.
struct ListedCase {
  static constexpr float kBandwidth = 0.25f;

  ListedCase(Context& ctx, ListedShape s, DType t, bool empty_row = false)
      : ListedCase(ctx, s, t, random_parameters(s.latents, s.d, 1), empty_row) {}
  ListedCase(Context& ctx, ListedShape s, DType t, const PerLatent<float>& p, bool empty_row)
      : ListedCase(ctx, s, t, p, sparse_z(s.n, p.threshold, kBandwidth / 2, s.density, empty_row, 11), 1) {}
  ListedCase(Context& ctx, ListedShape s, DType t, const PerLatent<float>& p, const std::vector<float>& pre_activations,
             uint32_t seed)
      : ctx(ctx),
        shape(s),
        type(t),
        parameters(p),
        z(pre_activations),
        dx(uniform(s.n * s.d, seed + 20, t, -1, 1)),
        centred(uniform(s.n * s.d, seed + 21, t, -1, 1)),
        dl0(uniform(s.n, seed + 22, DType::kF32, 0, 0.5f)),
        entries(ctx, z, parameters.threshold, kBandwidth / 2, s.spare),
        dxs(ctx, t, {s.n, s.d}, dx),
        centreds(ctx, t, {s.n, s.d}, centred),
        dl0s(ctx, DType::kF32, {s.n}, dl0),
        db(ctx, DType::kF32, {s.latents}),
        fired(ctx, DType::kI32, {s.latents}),
        pull(ctx, DType::kF32, {s.d}, std::vector<float>(s.d, 0.25f)) {
    auto values = uniform(entries->capacity(), seed + 23, DType::kF32, -1, 1);
    upload(ctx, entries->df, values);
    df = entries.spread(ctx, values);
    listed = entries.spread(ctx, std::vector<float>(entries->capacity(), 1.0f));
  }

  bool visited(int64_t i) const {
    for (int64_t r = 0; r < shape.n; ++r)
      if (listed[r * shape.latents + i] != 0) return true;
    return false;
  }

  void run(const GuardedState& s, Tensor rates, Tensor clock, LatentUpdateOptions o = {}) {
    update_listed_latents(ctx, s.state(), entries, dxs, centreds, dl0s, db, fired, pull, rates, clock, kBandwidth, o);
  }

  // The same by the dense ops: gradients, fired, pull.
  void run_dense(const GuardedState& s, Tensor rates, Tensor clock, LatentUpdateOptions o, Guarded& dense_db,
                 Guarded& dense_fired, Guarded& dense_pull) {
    const auto [n, F, d, density, spare] = shape;
    const LatentState state = s.state();
    Guarded zs(ctx, DType::kF32, {n, F}, z), dfs(ctx, DType::kF32, {n, F}, df), f(ctx, type, {n, F}),
        dz(ctx, type, {n, F});
    GuardedLatents gradients(ctx, F, d, PerLatent<float>(F, d));
    LatentTensors g = gradients;
    g.b_enc = dense_db;
    jump_relu(ctx, f, zs, state.p.threshold, {}, dense_fired);
    jump_relu_backward(ctx, dz, g.b_enc, g.threshold, dfs, zs, state.p.threshold, dl0s, kBandwidth);
    matmul(ctx, g.W_dec, f, dxs, {.transpose_a = true});
    matmul(ctx, g.W_enc, dz, centreds, {.transpose_a = true});
    matmul(ctx, Tensor(dense_pull).reshape({1, d}), g.b_enc.reshape({1, F}), state.p.W_enc, {.accumulate = true});
    update_latents(ctx, state, g, rates, clock, o);
  }

  Context& ctx;
  ListedShape shape;
  DType type;
  PerLatent<float> parameters;
  std::vector<float> z, dx, centred, dl0, df, listed;
  GuardedEntries entries;
  Guarded dxs, centreds, dl0s, db, fired, pull;
};

// By hand: B = 2, F = 3, d = 2, bandwidth 1/4, beta2 = 0, no epsilon to speak of: each parameter moves by lr times its
// gradient's sign. Latent 0 has no entry. Latent 1 is on in both rows, in the first one within the window; latent 2 is
// in the window only.
//   db[1] = 2 - 1 = 1;  g_enc[1] = 2 (1, 0) - 1 (0, 1) = (2, -1);  g_dec[1] = 0.5625 (1, 1) + 2 (-1, 1) = (-1.4375,
//   2.5625), less its part along (1, 0): (0, 2.5625);  dtheta[1] = -4 (0.5 * 2 + 3) = -16
//   dtheta[2] = -4 (0.5 * -8 + 3) = 4;  pull = 1 * (5, 7)
TEST_P(UpdateListedLatents, WorkedExample) {
  PerLatent<float> p(3, 2);
  p.W_enc = {1, 2, 5, 7, 3, 4}, p.W_dec = {1, 0, 1, 0, 0, 1};
  p.b_enc = {1, 1, 1}, p.threshold = {0.5f, 0.5f, 0.5f};
  const std::vector<float> z{-1, 0.5625f, 0.4375f, -1, 2, -1};
  for (const DType t : {DType::kF32, DType::kBF16}) {
    GuardedEntries entries(ctx, z, p.threshold, 0.125f, 0);
    upload<float>(ctx, entries->df, {2, -1, -8});
    GuardedState s(ctx, 3, 2, p, PerLatent<float>(3, 2), {0, 0, 0});
    Guarded db(ctx, DType::kF32, {3}), fired(ctx, DType::kI32, {3}), pull(ctx, DType::kF32, {2}, {10, 20});
    update_listed_latents(ctx, s.state(), entries, Guarded(ctx, t, {2, 2}, {1, 1, -1, 1}),
                          Guarded(ctx, t, {2, 2}, {1, 0, 0, 1}), Guarded(ctx, DType::kF32, {2}, {3, 5}), db, fired,
                          pull, Rates{0.125f, 0, 1}.on(ctx), clock(1), 0.25f, {.epsilon = 1e-30f});
    EXPECT_EQ(download<int32_t>(ctx, fired), (std::vector<int32_t>{0, 2, 0}));
    EXPECT_EQ(pull.read(), (std::vector<float>{15, 27}));
    EXPECT_EQ(db.read()[1], 1.0f);
    EXPECT_EQ(db.read()[2], 0.0f);
    const auto got = s.p.read(), v = s.v.read();
    EXPECT_EQ(v.W_enc, (std::vector<float>{0, 0, 4, 1, 0, 0}));
    EXPECT_EQ(v.W_dec, (std::vector<float>{0, 0, 0, 2.5625f * 2.5625f, 0, 0}));
    EXPECT_EQ(v.b_enc, (std::vector<float>{0, 1, 0}));
    EXPECT_EQ(v.threshold, (std::vector<float>{0, 256, 16}));
    EXPECT_EQ(got.W_enc, (std::vector<float>{1, 2, 4.875f, 7.125f, 3, 4}));
    EXPECT_EQ(got.b_enc, (std::vector<float>{1, 0.875f, 1}));
    EXPECT_EQ(got.threshold, (std::vector<float>{0.5f, 0.625f, 0.375f}));
    const double norm = std::sqrt(1 + 1 / 64.);
    expect_close(got.W_dec, std::vector<double>{1, 0, 1 / norm, -0.125 / norm, 0, 1}, 4 * kUnit);
    EXPECT_EQ(download<int64_t>(ctx, s.stamp), (std::vector<int64_t>{0, 1, 1}));
  }
}

// A warp for each latent, a block with one vector in a thread, with three, and rows of any length; latents with more
// entries than one team takes (256), in each of them; more rows than are looked up at once; more such latents than
// cuda has blocks for. With room for 600000
// entries cuda's workspace holds 1820 such latents of 2304 columns: they then are those with more than 330 entries.
const ListedShape kListedShapes[] = {{1, 1, 1, 1},         {5, 9, 7, 0.4},     {33, 40, 32, 0.2},
                                     {40, 300, 192, 0.05}, {6, 50, 2304, 0.2}, {3, 20, 2305, 0.3},
                                     {17, 12, 260, 0.25},  {2, 5, 4608, 0.5},  {300, 4, 8, 0.9},
                                     {300, 4, 7, 0.9},     {270, 3, 2304, 1},  {400, 3, 2304, 0.7, 600000},
                                     {600, 3, 136, 1},     {300, 130, 8, 1},   {260, 3, 1024, 0.9}};

// The sums of n terms are in f32: (n + 1) u of their magnitudes. From there as in UpdateLatents.MatchesDoubles: v
// starts at 1/4 or more and keeps three quarters, so an error of a gradient moves a parameter by at most 2.3 lr times
// that. And the same from the dense ops, which have the same bounds.
TEST_P(UpdateListedLatents, MatchesDoublesAndTheDenseOps) {
  const Rates rates{0.05f, 0.95f, 6, 0.8f};
  const LatentUpdateOptions options{.epsilon = 1e-8f, .decoder_rate = 0.5f, .threshold_rate = 0.25f};
  const double lr = rates.lr, fresh = 1 - double(rates.beta2), eps = ListedCase::kBandwidth;
  bool empty_row = false;
  for (const ListedShape shape : kListedShapes)
    for (const DType t : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(testing::Message() << shape.n << " x " << shape.latents << " x " << shape.d << " " << name(t));
      empty_row = !empty_row && shape.n > 1;
      const auto [n, F, d, density, spare] = shape;
      ListedCase c(ctx, shape, t, empty_row);
      const auto v0 = uniform_latents(F, d, 11, 0.25f, 1);
      std::vector<int64_t> stamps(F), stamps_after(F, rates.t);
      for (int64_t i = 0; i < F; ++i) stamps[i] = 5 - i % 5;

      PerLatent<double> p(c.parameters), v(v0), g(F, d), p_bound(F, d, 12 * kUnit), v_bound(F, d);
      std::vector<double> db(F), db_bound(F), pull(d, 0.25), pull_bound(d, kUnit);
      std::vector<int32_t> fired(F);
      for (int64_t i = 0; i < F; ++i) {
        std::vector<double> enc_error(d), dec_error(d);
        double theta_size = 0, b_size = 0, count = 0;
        for (int64_t r = 0; r < n; ++r) {
          const float z = c.z[r * F + i], theta = c.parameters.threshold[i], df = c.df[r * F + i];
          if (std::fabs(z - theta) < float(eps) / 2) {
            g.threshold[i] -= (double(theta) * df + c.dl0[r]) / eps;
            theta_size += (std::fabs(double(theta) * df) + c.dl0[r]) / eps;
          }
          count += c.listed[r * F + i];
          if (z <= theta) continue;
          ++fired[i];
          db[i] += df, b_size += std::fabs(df);
          const double f = rounded(z, t), dz = rounded(df, t);
          for (int64_t j = 0; j < d; ++j) {
            const double enc = dz * c.centred[r * d + j], dec = f * c.dx[r * d + j];
            g.W_enc[i * d + j] += enc, enc_error[j] += std::fabs(enc);
            g.W_dec[i * d + j] += dec, dec_error[j] += std::fabs(dec);
          }
        }
        g.b_enc[i] = db[i];
        db_bound[i] = (count + 1) * kUnit * b_size;
        double along_size = 0, along_error = 0;
        for (int64_t j = 0; j < d; ++j) {
          enc_error[j] *= (count + 1) * kUnit, dec_error[j] *= (count + 1) * kUnit;
          const double w = std::fabs(c.parameters.W_dec[i * d + j]);
          along_size += std::fabs(g.W_dec[i * d + j]) * w, along_error += dec_error[j] * w;
          pull[j] += db[i] * c.parameters.W_enc[i * d + j];
          pull_bound[j] +=
              (db_bound[i] + double(F + 2) * kUnit * std::fabs(db[i])) * std::fabs(c.parameters.W_enc[i * d + j]);
        }
        const auto bound = [&](double& p_at, double& v_at, double gradient, double error) {
          p_at += 2.3 * lr * error;
          v_at += fresh * (2 * std::fabs(gradient) * error + error * error);
        };
        for (int64_t j = 0; j < d; ++j) {
          const int64_t at = i * d + j;
          const double w = std::fabs(c.parameters.W_dec[at]), size = std::fabs(g.W_dec[at]);
          const double error = dec_error[j] + along_error * w + (double(d + 3) * along_size * w + 2 * size) * kUnit;
          bound(p_bound.W_enc[at], v_bound.W_enc[at], g.W_enc[at], enc_error[j]);
          bound(p_bound.W_dec[at], v_bound.W_dec[at], size + along_size * w, error);
        }
        bound(p_bound.b_enc[i], v_bound.b_enc[i], db[i], db_bound[i]);
        bound(p_bound.threshold[i], v_bound.threshold[i], g.threshold[i], (count + 4) * kUnit * theta_size);
        if (count > 0) step_in_doubles(p, v, g, i, stamps[i], rates, options);
        else stamps_after[i] = stamps[i];
      }

      const auto check = [&](GuardedState& s, double factor) {
        const auto got = s.p.read(), moment = s.v.read();
        expect_close(got.W_enc, p.W_enc, factor * 2 * kUnit, factor, p_bound.W_enc);
        expect_close(got.W_dec, p.W_dec, factor * 2 * kUnit, factor, p_bound.W_dec);
        expect_close(got.b_enc, p.b_enc, factor * 2 * kUnit, factor, p_bound.b_enc);
        expect_close(got.threshold, p.threshold, factor * 2 * kUnit, factor, p_bound.threshold);
        expect_close(moment.W_enc, v.W_enc, factor * 16 * kUnit, factor, v_bound.W_enc);
        expect_close(moment.W_dec, v.W_dec, factor * 16 * kUnit, factor, v_bound.W_dec);
        expect_close(moment.b_enc, v.b_enc, factor * 16 * kUnit, factor, v_bound.b_enc);
        expect_close(moment.threshold, v.threshold, factor * 16 * kUnit, factor, v_bound.threshold);
        expect_unit_rows(got.W_dec, d);
      };
      GuardedState s(ctx, F, d, c.parameters, v0, stamps);
      c.run(s, rates.on(ctx), clock(rates.t), options);
      check(s, 1);
      EXPECT_EQ(download<int32_t>(ctx, c.fired), fired);
      EXPECT_EQ(download<int64_t>(ctx, s.stamp), stamps_after);
      EXPECT_EQ(s.W_enc16.read(), in_bf16(s.p.read().W_enc));
      EXPECT_EQ(s.W_dec16.read(), in_bf16(s.p.read().W_dec));
      auto sums = c.db.read();
      for (int64_t i = 0; i < F; ++i)
        if (!c.visited(i)) sums[i] = 0;
      expect_close(sums, db, 0, 1, db_bound);
      expect_close(c.pull.read(), pull, 0, 1, pull_bound);

      // the dense ops move every latent: those without entries are put back into step by that
      GuardedState dense(ctx, F, d, c.parameters, v0, stamps);
      Guarded dense_db(ctx, DType::kF32, {F}, std::vector<float>(F)),
          dense_fired = on_device(ctx, std::vector<int32_t>(F)),
          dense_pull(ctx, DType::kF32, {d}, std::vector<float>(d, 0.25f));
      c.run_dense(dense, rates.on(ctx), clock(rates.t), options, dense_db, dense_fired, dense_pull);
      for (int64_t i = 0; i < F; ++i)
        if (!c.visited(i)) step_in_doubles(p, v, g, i, stamps[i], rates, options);
      check(dense, 1);
      EXPECT_EQ(download<int32_t>(ctx, dense_fired), fired);
      expect_close(dense_db.read(), db, 0, 1, db_bound);
      expect_close(dense_pull.read(), pull, 0, 1, pull_bound);
    }
}

// With room for 600000 entries, latents of 2304 columns have a slot from 331 entries on. Those of 280 lie between those
// of 660, and have none: without them the others' rows are the same bits.
TEST_P(UpdateListedLatents, OnlyHeavyLatentsHaveSlots) {
  const int64_t n = 660, F = 12, d = 2304, light = 280;
  const auto rows_of_heavy = [&](int64_t light_entries) {
    const auto p = random_parameters(F, d, 1);
    std::vector<float> z(n * F);
    for (int64_t r = 0; r < n; ++r)
      for (int64_t i = 0; i < F; ++i) z[r * F + i] = p.threshold[i] + (i % 2 == 1 || r < light_entries ? 1.0f : -1.0f);
    const int64_t spare = 600000 + F / 2 * (light - light_entries);  // the same room in both
    ListedCase c(ctx, {n, F, d, 0, spare}, DType::kF32, p, z, 1);
    upload(ctx, c.entries->df, std::vector<float>(c.entries->capacity(), 0.5f));
    GuardedState s(ctx, F, d, p, PerLatent<float>(F, d), std::vector<int64_t>(F));
    c.run(s, Rates{0.1f, 0, 1}.on(ctx), clock(1), {.epsilon = 1});
    const auto got = s.p.read();
    std::vector<float> rows;
    for (int64_t i = 1; i < F; i += 2)
      for (const auto* w : {&got.W_enc, &got.W_dec})
        rows.insert(rows.end(), w->begin() + i * d, w->begin() + (i + 1) * d);
    return rows;
  };
  EXPECT_EQ(rows_of_heavy(light), rows_of_heavy(0));
}

// Many latents, most of them without entries: teams that have several, and none.
TEST_P(UpdateListedLatents, ManyLatents) {
  const int64_t n = 2, F = (1 << 15) + 5, d = 4;
  ListedCase c(ctx, {n, F, d, 0.01}, DType::kF32);
  GuardedState s(ctx, F, d, c.parameters, PerLatent<float>(F, d), std::vector<int64_t>(F));
  const Rates rates{0.1f, 0, 1};
  c.run(s, rates.on(ctx), clock(1), {.epsilon = 1e-30f});
  const auto got = s.p.read();
  const auto fired = download<int32_t>(ctx, c.fired);
  const auto stamps = download<int64_t>(ctx, s.stamp);
  std::vector<double> pull(d, 0.25), terms(d, 0.25);
  int64_t visited = 0;
  for (int64_t i = 0; i < F; ++i) {
    int32_t on = 0;
    double db = 0;
    for (int64_t r = 0; r < n; ++r)
      if (c.z[r * F + i] > c.parameters.threshold[i]) ++on, db += c.df[r * F + i];
    ASSERT_EQ(fired[i], on) << i;
    ASSERT_EQ(stamps[i], c.visited(i)) << i;
    visited += c.visited(i);
    for (int64_t j = 0; j < d; ++j) {
      const float w = c.parameters.W_enc[i * d + j];
      pull[j] += db * w, terms[j] += std::fabs(db * w);
      if (on > 0) ASSERT_NE(got.W_enc[i * d + j], w) << i;
      else ASSERT_EQ(got.W_enc[i * d + j], w) << i;
    }
  }
  EXPECT_GT(visited, 200);
  expect_close(c.pull.read(), pull, 0, double(visited) * kUnit, terms);  // sums of so many products
}

// Sparse steps, sparse and dense steps in turn, and dense steps alone: the same latents within rounding, those that sat
// out steps included. Without a window, so that all of them see the same entries. An error of a gradient, below 64 u of
// its size, moves a parameter by 64 u lr / sqrt(1 - beta2) at most in one step, and so do those of v; then its own
// rounding.
TEST_P(UpdateListedLatents, InTurnWithDenseSteps) {
  const ListedShape shape{9, 30, 36, 0.08};
  const int64_t F = shape.latents, d = shape.d;
  const int steps = 8;
  for (const DType t : {DType::kF32, DType::kBF16}) {
    std::vector<PerLatent<float>> after, moments;
    for (const int every : {1, 2, 100}) {  // dense steps, from the first one
      auto p = random_parameters(F, d, 1);
      p.threshold.assign(F, 0.5f);
      GuardedState s(ctx, F, d, p, PerLatent<float>(F, d), std::vector<int64_t>(F));
      for (int step = 1; step <= steps; ++step) {
        auto z = sparse_z(shape.n, p.threshold, ListedCase::kBandwidth / 2, shape.density, false, 100 * step);
        for (float& at : z) at = at > 0.4f ? 1 + at : -1;
        ListedCase c(ctx, shape, t, p, z, 100 * step);
        const Rates rates{0.01f, 0.9f, step};
        Guarded db(ctx, DType::kF32, {F}, std::vector<float>(F)), fired = on_device(ctx, std::vector<int32_t>(F)),
                                                                  pull(ctx, DType::kF32, {d}, std::vector<float>(d));
        if (step % every == 0) c.run_dense(s, rates.on(ctx), clock(step), {}, db, fired, pull);
        else c.run(s, rates.on(ctx), clock(step), {});
        expect_unit_rows(s.p.read().W_dec, d);
      }
      // brings every latent's moments up to date
      update_latents(ctx, s.state(), GuardedLatents(ctx, F, d, PerLatent<float>(F, d)),
                     Rates{0.01f, 0.9f, steps + 1}.on(ctx), clock(steps + 1), {});
      after.push_back(s.p.read()), moments.push_back(s.v.read());
    }
    EXPECT_NE(after[0].W_enc, random_parameters(F, d, 1).W_enc);
    const double bound = steps * (64 * 0.01 * 3.2 + 2) * kUnit;
    for (int k = 1; k < 3; ++k) {
      expect_close(after[k].W_enc, after[0].W_enc, 0, bound);
      expect_close(after[k].W_dec, after[0].W_dec, 0, bound);
      expect_close(after[k].b_enc, after[0].b_enc, 0, bound);
      expect_close(after[k].threshold, after[0].threshold, 0, bound);
      expect_close(moments[k].W_enc, moments[0].W_enc, 0, 1e-5);
      expect_close(moments[k].W_dec, moments[0].W_dec, 0, 1e-5);
    }
  }
}

// A NaN of z, which is on, reaches its latent's gradients and pull, and no other latent.
TEST_P(UpdateListedLatents, NanIsOnAndShows) {
  for (const ListedShape shape :
       {ListedShape{3, 3, 8, 1}, {3, 3, 300, 1}, {3, 3, 1100, 1}, {3, 3, 9, 1}, {280, 3, 8, 1}}) {
    const auto [n, F, d, density, spare] = shape;
    const auto p = random_parameters(F, d, 1);
    auto z = sparse_z(n, p.threshold, 0.125f, density, false, 11);
    z[F + 1] = std::nanf("");
    ListedCase c(ctx, shape, DType::kF32, p, z, 1);
    GuardedState s(ctx, F, d, p, PerLatent<float>(F, d), std::vector<int64_t>(F));
    c.run(s, Rates{0.1f, 0.9f, 1}.on(ctx), clock(1));
    const auto got = s.p.read();
    for (int64_t at = 0; at < F * d; ++at) ASSERT_EQ(std::isnan(got.W_dec[at]), at / d == 1) << at;
    EXPECT_EQ(download<int32_t>(ctx, c.fired)[1], [&] {
      int32_t on = 0;
      for (int64_t r = 0; r < n; ++r) on += !(z[r * F + 1] <= p.threshold[1]);
      return on;
    }());
  }
}

TEST_P(UpdateListedLatents, SameBitsEveryTime) {
  for (const ListedShape shape : {ListedShape{70, 100, 64, 0.2}, {300, 70, 33, 0.9}}) {
    std::vector<float> first;
    PerLatent<float> parameters;
    for (const int count : {1, 2, 3}) {
      const Threads threads(count);
      ListedCase c(ctx, shape, DType::kBF16);
      GuardedState s(ctx, shape.latents, shape.d, c.parameters, uniform_latents(shape.latents, shape.d, 11, 0, 1),
                     std::vector<int64_t>(shape.latents, 2));
      c.run(s, Rates{0.1f, 0.9f, 9}.on(ctx), clock(9));
      if (count == 1) first = c.pull.read(), parameters = s.p.read();
      EXPECT_EQ(c.pull.read(), first) << count << " threads";
      EXPECT_EQ(s.p.read(), parameters) << count << " threads";
    }
  }
}

// Lists of another length, rates and clock are read from device memory when the graph is replayed.
TEST_P(UpdateListedLatents, InAGraph) {
  const ListedShape shape{12, 20, 36, 0.3};
  const int64_t F = shape.latents, d = shape.d;
  ListedCase a(ctx, shape, DType::kBF16), b(ctx, shape, DType::kBF16), fewer(ctx, {12, 20, 36, 0.1}, DType::kBF16);
  const PerLatent<float> zeros(F, d);
  GuardedState one_by_one(ctx, F, d, a.parameters, zeros, std::vector<int64_t>(F)),
      graphed(ctx, F, d, a.parameters, zeros, std::vector<int64_t>(F));
  Guarded r(ctx, DType::kF32, {kRates}), now(ctx, DType::kI64, {1});
  Graph graph;
  for (int64_t t = 1; t <= 5; ++t) {
    copy(ctx, r, Rates{0.1f / float(t), 0.9f, t}.on(ctx));
    upload<int64_t>(ctx, now, {t});
    if (t == 4)
      for (ListedCase* c : {&a, &b}) {
        copy(ctx, c->entries->begin, fewer.entries->begin);
        const int64_t count = fewer.entries->capacity();
        copy(ctx, c->entries->row.rows(0, count), fewer.entries->row);
        copy(ctx, c->entries->z.rows(0, count), fewer.entries->z);
      }
    a.run(one_by_one, r, now);
    graph.run(ctx, [&] { b.run(graphed, r, now); });
    EXPECT_EQ(graphed.p.read(), one_by_one.p.read());
    EXPECT_EQ(b.pull.read(), a.pull.read());
    EXPECT_EQ(download<int32_t>(ctx, b.fired), download<int32_t>(ctx, a.fired));
  }
}

TEST_P(UpdateListedLatents, RefusesWrongOperands) {
  const ListedShape shape{2, 3, 4, 1};
  ListedCase c(ctx, shape, DType::kF32), other(ctx, {3, 3, 4, 1}, DType::kF32), wide(ctx, {2, 4, 4, 1}, DType::kF32);
  GuardedState s(ctx, 3, 4, c.parameters, PerLatent<float>(3, 4), {0, 0, 0});
  const Guarded r = Rates{0.1f, 0.9f, 1}.on(ctx), now = clock(1), narrow(ctx, DType::kBF16, {2, 4}),
                odd(ctx, DType::kF32, {5});
  struct Call {
    const Entries* entries;
    Tensor dx, centred, dl0, db, fired, pull, rates, clock;
    float bandwidth;
  };
  const auto call = [&](auto&& change) {
    Call o{&static_cast<const Entries&>(c.entries), c.dxs, c.centreds, c.dl0s, c.db, c.fired, c.pull, r, now, 0.25f};
    change(o);
    update_listed_latents(ctx, s.state(), *o.entries, o.dx, o.centred, o.dl0, o.db, o.fired, o.pull, o.rates, o.clock,
                          o.bandwidth, {});
  };
  EXPECT_NO_THROW(call([](Call&) {}));
  EXPECT_THROW(call([&](Call& o) { o.entries = &static_cast<const Entries&>(other.entries); }), Error);
  EXPECT_THROW(call([&](Call& o) { o.entries = &static_cast<const Entries&>(wide.entries); }), Error);
  EXPECT_THROW(call([&](Call& o) { o.dx = narrow; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.dx = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.centred = other.centreds; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.dl0 = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.db = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.fired = c.db; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.pull = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.rates = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.clock = odd; }), Error);
  EXPECT_THROW(call([&](Call& o) { o.bandwidth = 0; }), Error);
}

}  // namespace
}  // namespace gsae::test
