#include "kernels/jump_relu.h"

#include "tests/harness.h"
#include "tests/threads.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct JumpRelu : OnDevice {};
ON_DEVICES(JumpRelu);
struct JumpReluBackward : OnDevice {};
ON_DEVICES(JumpReluBackward);

float rounded(float x, DType t) { return t == DType::kBF16 ? to_float(to_bf16(x)) : x; }

// Multiples of `step` in [lo, hi] * step: sums and differences are exact, and ties happen.
std::vector<float> grid(int64_t n, uint32_t seed, int lo, int hi, float step) {
  auto v = integers(n, seed, lo, hi);
  for (float& x : v) x *= step;
  return v;
}

// By hand. A pre-activation at its threshold is off.
TEST_P(JumpRelu, WorkedExample) {
  Guarded f(ctx, DType::kF32, {2, 3}), l0(ctx, DType::kF32, {2});
  Guarded z(ctx, DType::kF32, {2, 3}, {1.5, 1, 0, 1, 2, 1}), theta(ctx, DType::kF32, {3}, {1, 1, 0});
  Guarded fired = on_device<int32_t>(ctx, {5, 0, 7});
  jump_relu(ctx, f, z, theta, l0, fired);
  EXPECT_EQ(z.read(), (std::vector<float>{1.5, 1, 0, 1, 2, 1}));
  EXPECT_EQ(f.read(), (std::vector<float>{1.5, 0, 0, 0, 2, 1}));
  EXPECT_EQ(l0.read(), (std::vector<float>{1, 2}));
  EXPECT_EQ(download<int32_t>(ctx, fired), (std::vector<int32_t>{6, 1, 8}));
}

struct Shape {
  int64_t n, latents;
};
// With cuda's stripes of 1024 latents (256 where F is odd) and chunks of 16 rows: less than one, one, one and a bit.
const Shape kShapes[] = {{1, 1},     {1, 515},   {3, 511},   {17, 512}, {33, 513},
                         {50, 1537}, {16, 1024}, {17, 1028}, {300, 4},  {35, 132}};

// Exact: one comparison, one rounding to bf16.
TEST_P(JumpRelu, MatchesTheFormula) {
  for (const auto [n, latents] : kShapes)
    for (const DType t : {DType::kF32, DType::kBF16}) {
      auto zs = grid(n * latents, 1, -600, 600, 0x1p-9f);
      for (int64_t i = 0; i < latents && n > 2; ++i) zs[2 * latents + i] = -9;  // a row where nothing fires
      const auto theta = grid(latents, 3, 0, 300, 0x1p-9f);
      std::vector<float> fs(zs.size()), counts(n);
      std::vector<int32_t> want_fired(latents, 3);
      int64_t ties = 0;
      for (int64_t r = 0; r < n; ++r)
        for (int64_t i = 0; i < latents; ++i) {
          const int64_t at = r * latents + i;
          const bool on = zs[at] > theta[i];
          ties += zs[at] == theta[i];
          fs[at] = on ? rounded(zs[at], t) : 0;
          counts[r] += on, want_fired[i] += on;
        }
      EXPECT_TRUE(n * latents < 5000 || ties > 0);
      Guarded f(ctx, t, {n, latents}), z(ctx, DType::kF32, {n, latents}, zs), l0(ctx, DType::kF32, {n});
      Guarded thetas(ctx, DType::kF32, {latents}, theta), fired = on_device(ctx, std::vector<int32_t>(latents, 3));
      jump_relu(ctx, f, z, thetas, l0, fired);
      EXPECT_EQ(z.read(), zs);
      EXPECT_EQ(f.read(), fs);
      EXPECT_EQ(l0.read(), counts);
      EXPECT_EQ(download<int32_t>(ctx, fired), want_fired);
      if (t != DType::kF32) continue;
      jump_relu(ctx, z, z, thetas, {}, {});  // f may be z
      EXPECT_EQ(z.read(), fs);
    }
}

TEST_P(JumpRelu, NanShows) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    std::vector<float> in(2 * 40, -1.0f);
    in[57] = std::nanf("");
    Guarded f(ctx, t, {2, 40}), z(ctx, DType::kF32, {2, 40}, in), l0(ctx, DType::kF32, {2});
    Guarded fired = on_device(ctx, std::vector<int32_t>(40));
    jump_relu(ctx, f, z, Guarded(ctx, DType::kF32, {40}, std::vector<float>(40)), l0, fired);
    const auto got = f.read();
    for (int64_t i = 0; i < 80; ++i) EXPECT_EQ(std::isnan(got[i]), i == 57) << i;
    EXPECT_EQ(l0.read(), (std::vector<float>{0, 1}));
    EXPECT_EQ(download<int32_t>(ctx, fired)[17], 1);
  }
}

TEST_P(JumpRelu, RefusesWrongOperands) {
  Guarded f(ctx, DType::kF32, {2, 3}), z(ctx, DType::kF32, {2, 3}), v(ctx, DType::kF32, {3}), l0(ctx, DType::kF32, {2});
  Guarded wide(ctx, DType::kF32, {2, 4}), z16(ctx, DType::kBF16, {2, 3}), l016(ctx, DType::kBF16, {2});
  EXPECT_THROW(jump_relu(ctx, wide, z, v, l0, {}), Error);
  EXPECT_THROW(jump_relu(ctx, f, z16, v, l0, {}), Error);
  EXPECT_THROW(jump_relu(ctx, f, z, l0, l0, {}), Error);
  EXPECT_THROW(jump_relu(ctx, f, z, v, v, {}), Error);
  EXPECT_THROW(jump_relu(ctx, f, z, v, l016, {}), Error);
  EXPECT_THROW(jump_relu(ctx, f, z, v, l0, v), Error);
  Tensor none = z, none_f = f, none_l0 = l0;
  none.dim[0] = none_f.dim[0] = none_l0.dim[0] = 0;
  EXPECT_NO_THROW(jump_relu(ctx, none_f, none, v, none_l0, {}));
}

// By hand, bandwidth 1/2: both latents of row 0 are within 1/4 of their thresholds, of row 1 only the second; at
// exactly 1/4 a latent is outside.
//   dz = (0, 4; 3, 0, and nothing at the threshold itself)
//   dtheta_0 = -2 (1 * 2 + 0.5)             = -5, added to 10
//   dtheta_1 = -2 (0.5 * 4 + 0.5 + 0.5 * 6 - 1) = -9
TEST_P(JumpReluBackward, WorkedExample) {
  Guarded dz(ctx, DType::kF32, {2, 2}), dbias(ctx, DType::kF32, {2}, {1, 0}), dtheta(ctx, DType::kF32, {2}, {10, 0});
  Guarded df(ctx, DType::kF32, {2, 2}, {2, 4, 3, 6}), z(ctx, DType::kF32, {2, 2}, {0.875, 0.625, 1.25, 0.5});
  Guarded theta(ctx, DType::kF32, {2}, {1, 0.5}), dl0(ctx, DType::kF32, {2}, {0.5, -1});
  jump_relu_backward(ctx, dz, dbias, dtheta, df, z, theta, dl0, 0.5f);
  EXPECT_EQ(dz.read(), (std::vector<float>{0, 4, 3, 0}));
  EXPECT_EQ(dbias.read(), (std::vector<float>{4, 4}));
  EXPECT_EQ(dtheta.read(), (std::vector<float>{5, -9}));
}

// On grids of powers of two everything is exact but dz in bf16, which is rounded once. Pre-activations fall inside the
// window, outside it, on its edges and on the threshold.
TEST_P(JumpReluBackward, MatchesTheFormula) {
  const float bandwidth = 0x1p-5f;
  for (const auto [n, latents] : kShapes)
    for (const DType t : {DType::kF32, DType::kBF16}) {
      const auto theta = grid(latents, 1, 0, 60, 0x1p-10f), z = grid(n * latents, 2, -30, 90, 0x1p-10f),
                 df = grid(n * latents, 3, -250, 250, 0x1p-6f), dl0 = grid(n, 4, -30, 90, 0x1p-10f);
      const auto b0 = grid(latents, 5, -9, 9, 1), t0 = grid(latents, 6, -9, 9, 1);
      std::vector<float> dz(z.size());
      std::vector<double> dbias(b0.begin(), b0.end()), dtheta(t0.begin(), t0.end());
      int64_t edges = 0;
      for (int64_t r = 0; r < n; ++r)
        for (int64_t i = 0; i < latents; ++i) {
          const int64_t at = r * latents + i;
          const double off = std::fabs(double(z[at]) - theta[i]);
          if (z[at] > theta[i]) dz[at] = rounded(df[at], t), dbias[i] += df[at];
          if (off < bandwidth / 2) dtheta[i] -= (double(theta[i]) * df[at] + dl0[r]) / bandwidth;
          edges += off == bandwidth / 2;
        }
      EXPECT_TRUE(n * latents < 5000 || edges > 0);
      const auto run = [&](Tensor out, Tensor in) {
        Guarded db(ctx, DType::kF32, {latents}, b0), dt(ctx, DType::kF32, {latents}, t0);
        jump_relu_backward(ctx, out, db, dt, in, Guarded(ctx, DType::kF32, {n, latents}, z),
                           Guarded(ctx, DType::kF32, {latents}, theta), Guarded(ctx, DType::kF32, {n}, dl0), bandwidth);
        EXPECT_EQ(db.read(), std::vector<float>(dbias.begin(), dbias.end()));
        EXPECT_EQ(dt.read(), std::vector<float>(dtheta.begin(), dtheta.end()));
      };
      Guarded out(ctx, t, {n, latents}), in(ctx, DType::kF32, {n, latents}, df);
      run(out, in);
      EXPECT_EQ(out.read(), dz);
      EXPECT_EQ(in.read(), df);
      if (t == DType::kBF16) continue;
      run(in, in);  // dz may be df
      EXPECT_EQ(in.read(), dz);
    }
}

TEST_P(JumpReluBackward, NanPropagates) {
  const int64_t n = 3, latents = 20;
  std::vector<float> df(n * latents, 1.0f), z(n * latents, 0.5f);
  df[latents + 7] = std::nanf("");
  const std::vector<float> zeros(latents);
  Guarded dz(ctx, DType::kBF16, {n, latents}), dbias(ctx, DType::kF32, {latents}, zeros),
      dtheta(ctx, DType::kF32, {latents}, zeros);
  jump_relu_backward(ctx, dz, dbias, dtheta, Guarded(ctx, DType::kF32, {n, latents}, df),
                     Guarded(ctx, DType::kF32, {n, latents}, z),
                     Guarded(ctx, DType::kF32, {latents}, std::vector<float>(latents, 0.25f)),
                     Guarded(ctx, DType::kF32, {n}, std::vector<float>(n)), 1.0f);
  const auto rows = dz.read(), bias = dbias.read(), theta = dtheta.read();
  for (int64_t i = 0; i < n * latents; ++i) EXPECT_EQ(std::isnan(rows[i]), i == latents + 7) << i;
  for (int64_t i = 0; i < latents; ++i) {
    EXPECT_EQ(std::isnan(bias[i]), i == 7) << i;
    EXPECT_EQ(std::isnan(theta[i]), i == 7) << i;
  }
}

// On any numbers. A term rounds twice, the sum of n of them and of what was there n times, their factor twice: n + 4
// half ulps of the sum of their absolute values.
TEST_P(JumpReluBackward, SumsMatchDoubles) {
  const int64_t n = 70, latents = 260;
  const float bandwidth = 0.3f;
  const auto df = uniform(n * latents, 1, DType::kF32, -1, 1), z = uniform(n * latents, 2, DType::kF32, -1, 1),
             theta = uniform(latents, 3, DType::kF32, 0, 1), dl0 = uniform(n, 4, DType::kF32, -1, 1),
             b0 = uniform(latents, 5, DType::kF32, -1, 1), t0 = uniform(latents, 6, DType::kF32, -1, 1);
  std::vector<double> b(b0.begin(), b0.end()), t(t0.begin(), t0.end()), b_terms(latents), t_terms(latents);
  for (int64_t i = 0; i < latents; ++i) b_terms[i] = std::fabs(b0[i]), t_terms[i] = std::fabs(t0[i]);
  for (int64_t at = 0; at < n * latents; ++at) {
    const int64_t i = at % latents;
    const float off = z[at] - theta[i];  // as the op rounds it
    if (off > 0) b[i] += df[at], b_terms[i] += std::fabs(df[at]);
    if (std::fabs(off) >= bandwidth / 2) continue;
    const double pull = double(theta[i]) * df[at], penalty = dl0[at / latents];
    t[i] -= (pull + penalty) / double(bandwidth);
    t_terms[i] += (std::fabs(pull) + std::fabs(penalty)) / double(bandwidth);
  }
  Guarded dz(ctx, DType::kF32, {n, latents}), db(ctx, DType::kF32, {latents}, b0), dt(ctx, DType::kF32, {latents}, t0);
  jump_relu_backward(ctx, dz, db, dt, Guarded(ctx, DType::kF32, {n, latents}, df),
                     Guarded(ctx, DType::kF32, {n, latents}, z), Guarded(ctx, DType::kF32, {latents}, theta),
                     Guarded(ctx, DType::kF32, {n}, dl0), bandwidth);
  expect_close(db.read(), b, 0, double(n + 4) * 0x1p-24, b_terms);
  expect_close(dt.read(), t, 0, double(n + 4) * 0x1p-24, t_terms);
}

TEST_P(JumpReluBackward, SameBitsEveryTime) {
  const int64_t n = 70, latents = 1300;
  const auto df = uniform(n * latents, 1, DType::kF32, -1, 1), z = uniform(n * latents, 2, DType::kF32, -1, 1);
  std::vector<float> first;
  for (const int count : {1, 2, 3}) {
    const Threads threads(count);
    Guarded dz(ctx, DType::kF32, {n, latents}),
        dbias(ctx, DType::kF32, {latents}, uniform(latents, 3, DType::kF32, -1, 1)),
        dtheta(ctx, DType::kF32, {latents}, uniform(latents, 4, DType::kF32, -1, 1));
    jump_relu_backward(ctx, dz, dbias, dtheta, Guarded(ctx, DType::kF32, {n, latents}, df),
                       Guarded(ctx, DType::kF32, {n, latents}, z),
                       Guarded(ctx, DType::kF32, {latents}, uniform(latents, 5, DType::kF32, 0, 1)),
                       Guarded(ctx, DType::kF32, {n}, uniform(n, 6, DType::kF32, 0, 1)), 0.3f);
    auto all = dz.read();
    for (Guarded* g : {&dbias, &dtheta})
      for (const float x : g->read()) all.push_back(x);
    if (count == 1) first = all;
    else EXPECT_EQ(all, first) << count << " threads";
  }
}

TEST_P(JumpReluBackward, RefusesWrongOperands) {
  Guarded m(ctx, DType::kF32, {2, 3}), wide(ctx, DType::kF32, {3, 3}), v(ctx, DType::kF32, {3}),
      rows(ctx, DType::kF32, {2});
  EXPECT_NO_THROW(jump_relu_backward(ctx, m, v, v, m, m, v, rows, 1));
  EXPECT_THROW(jump_relu_backward(ctx, wide, v, v, m, m, v, rows, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, v, wide, m, v, rows, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, rows, v, m, m, v, rows, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, rows, m, m, v, rows, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, v, m, m, rows, rows, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, v, m, m, v, v, 1), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, v, m, m, v, rows, 0), Error);
  EXPECT_THROW(jump_relu_backward(ctx, m, v, v, m, m, v, rows, std::nanf("")), Error);
}

}  // namespace
}  // namespace gsae::test
