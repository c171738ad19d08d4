#include "sae/evaluation.h"

#include <fmt/format.h>

#include "io/safetensors.h"
#include "kernels/elementwise.h"
#include "tests/paths.h"
#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

const std::string kGolden = test_data("sae/gemma_scope/");

struct TinySae {
  explicit TinySae(const std::string& prefix = "folded/") : file(kGolden + "expected.safetensors") {
    const auto load = [&](const std::string& name, std::vector<float>& v) {
      const StoredTensor& t = file.get(prefix + name);
      v = to_f32(t);
      Tensor out = view(v.data(), {t.size()});
      if (t.shape.size() == 2) out = out.reshape({t.shape[0], t.shape[1]});
      return out;
    };
    params.W_enc = load("W_enc", values[0]);
    params.W_dec = load("W_dec", values[1]);
    params.b_enc = load("b_enc", values[2]);
    params.b_dec = load("b_dec", values[3]);
    params.threshold = load("threshold", values[4]);
  }
  SafetensorsFile file;
  std::vector<float> values[5];
  SaeParameters params;  // on the host
};

struct Workspace {
  Workspace(const Context& ctx, int64_t rows, int64_t width, int64_t latents) {
    Arena plan;
    EvaluationWorkspace(plan, rows, width, latents);
    memory = Buffer(ctx.device(), plan.used());
    Arena arena(memory);
    workspace = std::make_unique<EvaluationWorkspace>(arena, rows, width, latents);
  }
  Buffer memory;
  std::unique_ptr<EvaluationWorkspace> workspace;
};

struct SaeInference : OnDevice {};
ON_DEVICES(SaeInference);
struct SaeEvaluationTest : OnDevice {};
ON_DEVICES(SaeEvaluationTest);
struct SiteMeanTest : OnDevice {};
ON_DEVICES(SiteMeanTest);

// Against the folded SAE of the training golden, computed by PyTorch in f64.
TEST_P(SaeInference, MatchesTheGolden) {
  TinySae sae;
  Buffer sae_memory;
  const SaeParameters params = on_device(ctx, sae.params, sae_memory);
  const auto rows = to_f32(SafetensorsFile(kGolden + "activations.safetensors").get("activations"));
  const int64_t d = sae.params.width(), latents = sae.params.latents(), n = int64_t(rows.size()) / d;
  const Guarded x(ctx, DType::kF32, {n, d}, rows);
  Guarded f(ctx, DType::kF32, {n, latents}), x_hat(ctx, DType::kF32, {n, d}), l0(ctx, DType::kF32, {n});
  encode(ctx, f, x, params, l0);
  decode(ctx, x_hat, f, params);
  const auto want_f = to_f32(sae.file.get("eval/f")), want_hat = to_f32(sae.file.get("eval/x_hat"));
  // |z| to 50 and sums of 24 products: 1e-5 relative, and as much of the largest for cancelling terms.
  // A pre-activation that lies this near to its threshold could jump: none of these does.
  expect_close(f.read(), want_f, 1e-5, 1e-4);
  expect_close(x_hat.read(), want_hat, 1e-5, 1e-4);
  std::vector<double> counts(n);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t i = 0; i < latents; ++i) counts[r] += want_f[r * latents + i] > 0;
  expect_close(l0.read(), counts, 0);

  // Tile by tile, with a ragged last tile, from lists and not, in memory for a larger one, and with lists that fewer
  // rows fill: the same rows.
  const auto lay_out = [&](Arena& arena, int64_t rows, int64_t list_rows) {
    ReconstructionWorkspace w(arena, rows, d + 3, 2 * latents);
    w.entries = Entries(arena, rows, 2 * latents, list_rows * most_entries_of_row(latents));
    return w;
  };
  const int64_t few = emulated(ctx) ? 40 : n;  // a tile takes the emulation most of a second
  Arena plan;
  lay_out(plan, n, n);
  const Buffer memory(ctx.device(), plan.used());
  std::vector<int32_t> firings(latents);
  for (int64_t k = 0; k < few * latents; ++k) firings[k % latents] += want_f[k] > 0;
  for (const auto& [wanted, rows, list_rows] :
       {std::tuple<bool, int64_t, int64_t>{true, 7, 7}, {true, 7, n}, {false, 7, 7}, {true, n, n}, {true, 100, 3}}) {
    SCOPED_TRACE(testing::Message() << (wanted ? "from lists, " : "dense, ") << rows << " rows, " << list_rows);
    Arena arena(memory);
    const ReconstructionWorkspace tiles = lay_out(arena, rows, list_rows);
    Guarded tiled(ctx, DType::kF32, {few, d}), counted(ctx, DType::kF32, {few});
    Guarded fired(ctx, DType::kI32, {latents});
    fill_zero(ctx, fired);
    bool sparse = wanted;
    reconstruct(ctx, tiled, Tensor(x).rows(0, few), params, tiles, counted, fired, sparse);
    expect_close(tiled.read(), std::vector<float>(want_hat.begin(), want_hat.begin() + few * d), 1e-5, 1e-4);
    expect_close(counted.read(), std::vector<double>(counts.begin(), counts.begin() + few), 0);
    fired.read();  // its canaries
    EXPECT_EQ(download<int32_t>(ctx, fired), firings);
    EXPECT_EQ(sparse, wanted);
  }
}

// Few latents fire on the first tile, all on the second, few on the third: the second is computed another way, and what
// comes after it, and nothing is counted twice.
TEST_P(SaeInference, TooManyEntriesMakeItDense) {
  const int64_t d = 3, latents = 4100, tile = 4, n = 3 * tile;
  ASSERT_LT(most_entries_of_row(latents), latents);
  EXPECT_EQ(most_entries_of_row(100), 64);
  EXPECT_EQ(most_entries_of_row(10), 10);
  auto values = uniform(n * d, 1, DType::kF32, -1, 1);
  for (int64_t r = 0; r < n; ++r) values[r * d] = r / tile == 1 ? 100.0f : 0.0f;
  // every latent reads the first column; those of 50, 150, ... the second too, from 0.5 on
  std::vector<float> W_enc(d * latents), b_enc(latents, -1.0f), theta(latents, 0.0f);
  for (int64_t i = 0; i < latents; ++i) {
    W_enc[i] = 1;
    if (i % 100 == 50) W_enc[latents + i] = 3, b_enc[i] = 0.25f;
  }
  const auto W_dec = uniform(latents * d, 2, DType::kF32, -1, 1), b_dec = uniform(d, 3, DType::kF32, -1, 1);
  const Guarded x(ctx, DType::kF32, {n, d}, values), enc(ctx, DType::kF32, {d, latents}, W_enc),
      dec(ctx, DType::kF32, {latents, d}, W_dec), be(ctx, DType::kF32, {latents}, b_enc),
      bd(ctx, DType::kF32, {d}, b_dec), th(ctx, DType::kF32, {latents}, theta);
  SaeParameters params;
  params.W_enc = enc, params.W_dec = dec, params.b_enc = be, params.b_dec = bd, params.threshold = th;

  std::vector<double> hat(n * d), l0(n);
  std::vector<int32_t> firings(latents);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t c = 0; c < d; ++c) hat[r * d + c] = b_dec[c];
    for (int64_t i = 0; i < latents; ++i) {
      double z = b_enc[i];
      for (int64_t c = 0; c < d; ++c) z += double(values[r * d + c]) * W_enc[c * latents + i];
      if (z <= 0) continue;
      l0[r] += 1, firings[i] += 1;
      for (int64_t c = 0; c < d; ++c) hat[r * d + c] += z * W_dec[i * d + c];
    }
  }
  Arena plan;
  ReconstructionWorkspace(plan, tile, d, latents);
  const Buffer memory(ctx.device(), plan.used());
  Arena arena(memory);
  const ReconstructionWorkspace tiles(arena, tile, d, latents);
  Guarded x_hat(ctx, DType::kF32, {n, d}), counted(ctx, DType::kF32, {n});
  Guarded fired(ctx, DType::kI32, {latents});
  fill_zero(ctx, fired);
  bool sparse = true;
  reconstruct(ctx, x_hat, x, params, tiles, counted, fired, sparse);
  EXPECT_FALSE(sparse);
  EXPECT_LT(l0[0], most_entries_of_row(latents));
  EXPECT_EQ(l0[tile], latents);
  expect_close(x_hat.read(), hat, 1e-5, 2e-2);  // sums of 4,100 products of up to 100
  expect_close(counted.read(), l0, 0);
  fired.read();  // its canaries
  EXPECT_EQ(download<int32_t>(ctx, fired), firings);
}

// The golden's own FVU and L0; two batches, a third of the rows not counted, another centre: the same
// figures over the counted rows as a plain computation in doubles gives.
TEST_P(SaeEvaluationTest, MatchesTheGoldenInOneBatch) {
  TinySae sae;
  Buffer sae_memory;
  const SaeParameters params = on_device(ctx, sae.params, sae_memory);
  const auto x = to_f32(SafetensorsFile(kGolden + "activations.safetensors").get("activations"));
  const int64_t d = sae.params.width(), n = int64_t(x.size()) / d;
  Workspace w(ctx, n, d, params.latents());
  std::vector<int32_t> index(n), context(n);
  for (int64_t r = 0; r < n; ++r) index[r] = int32_t(r), context[r] = int32_t(r / 100);
  SaeEvaluation evaluation(params, std::vector<float>(d, 0.0f));
  evaluation.add(ctx, Guarded(ctx, DType::kF32, {n, d}, x), {on_device(ctx, index), context, n / 100}, *w.workspace,
                 false);
  const SaeMetrics m = evaluation.result();
  EXPECT_NEAR(m.l0.value, to_f32(sae.file.get("eval/l0"))[0], 1e-5);
  EXPECT_NEAR(m.fvu.value, to_f32(sae.file.get("eval/fvu"))[0], 1e-6);
  EXPECT_EQ(m.tokens, n);
  EXPECT_EQ(m.contexts, n / 100);
}

TEST_P(SaeEvaluationTest, BatchesUncountedRowsAndSplicing) {
  TinySae sae;
  Buffer sae_memory;
  const SaeParameters params = on_device(ctx, sae.params, sae_memory);
  const auto all = to_f32(SafetensorsFile(kGolden + "activations.safetensors").get("activations"));
  const int64_t d = sae.params.width(), latents = sae.params.latents(), batch = 60, batches = 5, length = 20;
  Workspace w(ctx, batch, d + 3, latents + 5);  // memory for wider ones serves
  const auto f = to_f32(sae.file.get("eval/f")), hat = to_f32(sae.file.get("eval/x_hat"));
  const auto counts = [](int64_t r) { return r % 3 != 0 && (r < 40 || r >= 60); };  // the third context: none

  std::vector<float> centre(d, 2.5f);
  SaeEvaluation evaluation(params, centre);
  for (int64_t b = 0; b < batches; ++b) {
    Guarded rows(ctx, DType::kF32, {batch, d}, {all.begin() + b * batch * d, all.begin() + (b + 1) * batch * d});
    std::vector<int32_t> index, context;
    for (int64_t r = 0; r < batch; ++r)
      if (counts(b * batch + r)) index.push_back(int32_t(r)), context.push_back(int32_t(r / length));
    evaluation.add(ctx, rows, {on_device(ctx, index), context, batch / length}, *w.workspace, true);
    const auto x = rows.read();
    for (int64_t i = 0; i < batch * d; ++i) {  // spliced where counted, untouched elsewhere
      const int64_t r = b * batch + i / d;
      if (counts(r)) EXPECT_NEAR(x[i], hat[r * d + i % d], 2e-4);
      else EXPECT_EQ(x[i], all[r * d + i % d]);
    }
  }
  const SaeMetrics m = evaluation.result();

  double tokens = 0, error = 0, l0 = 0, cosine = 0, ratio = 0, variance = 0;
  std::vector<double> mean(d);
  std::vector<int64_t> fired(latents);
  for (int pass = 0; pass < 2; ++pass)
    for (int64_t r = 0; r < batch * batches; ++r) {
      if (!counts(r)) continue;
      double xx = 0, hh = 0, xh = 0;
      for (int64_t i = 0; i < d; ++i) {
        const double a = all[r * d + i], b = hat[r * d + i];
        if (pass == 0) mean[i] += a;
        else variance += (a - mean[i] / tokens) * (a - mean[i] / tokens), error += (b - a) * (b - a);
        xx += a * a, hh += b * b, xh += a * b;
      }
      if (pass == 0) {
        ++tokens;
        continue;
      }
      cosine += xh / std::sqrt(xx * hh), ratio += std::sqrt(hh / xx);
      for (int64_t i = 0; i < latents; ++i) l0 += f[r * latents + i] > 0, fired[i] += f[r * latents + i] > 0;
    }
  EXPECT_EQ(m.tokens, tokens);
  EXPECT_EQ(m.contexts, 14);  // 15 less the one with nothing to count
  EXPECT_NEAR(m.l0.value, l0 / tokens, 1e-9);
  EXPECT_NEAR(m.mse.value, error / tokens, 1e-5 * error / tokens);
  EXPECT_NEAR(m.fvu.value, error / variance, 1e-5 * error / variance);
  EXPECT_NEAR(m.cosine.value, cosine / tokens, 1e-6);
  EXPECT_NEAR(m.norm_ratio.value, ratio / tokens, 1e-6);
  EXPECT_EQ(m.fired, fired);
  EXPECT_EQ(m.dead(), std::count(fired.begin(), fired.end(), 0));
  EXPECT_GT(m.fvu.error, 0);
}

TEST_P(SiteMeanTest, IsTheMeanOfCountedRows) {
  Workspace w(ctx, 4, 2, 1);
  SiteMean mean(2);
  EXPECT_EQ(mean.mean(), (std::vector<float>{0, 0}));
  const Guarded index = on_device(ctx, std::vector<int32_t>{1, 3});
  for (const float by : {0.0f, 10.0f}) {
    const Guarded x(ctx, DType::kF32, {4, 2}, {100, 100, 1 + by, 2, 100, 100, 3 + by, 6});
    mean.add(ctx, x, index, *w.workspace);
  }
  EXPECT_EQ(mean.mean(), (std::vector<float>{7, 4}));
}

// The standard error of a ratio: for equal b it is the textbook one of a mean; in general, what the
// formula says; and what many repetitions of the experiment show.
TEST(RatioSum, StandardErrors) {
  RatioSum equal;
  for (const double a : {1.0, 2.0, 3.0, 6.0}) equal.add(a * 5, 5);
  EXPECT_DOUBLE_EQ(equal.result().value, 3);
  EXPECT_DOUBLE_EQ(equal.result().error, std::sqrt(14.0 / 3 / 4));  // variance 14/3, of four

  RatioSum ratio;
  const double a[] = {3, 8, 1, 7}, b[] = {2, 5, 2, 4};
  double residual = 0;
  for (int i = 0; i < 4; ++i) ratio.add(a[i], b[i]), residual += std::pow(a[i] - 19.0 / 13 * b[i], 2);
  EXPECT_DOUBLE_EQ(ratio.result().value, 19.0 / 13);
  EXPECT_NEAR(ratio.result().error, std::sqrt(residual * 4 / 3) / 13, 1e-14);

  RatioSum one;
  EXPECT_TRUE(std::isnan(one.result().value));
  one.add(1, 2);
  EXPECT_EQ(one.result().value, 0.5);
  EXPECT_TRUE(std::isnan(one.result().error));

  // Contexts whose tokens share an offset: the spread of R over 400 repetitions against the mean of
  // the errors that it states. The naive error, over tokens, would be three times too small.
  std::mt19937 rng(1);
  std::normal_distribution<double> normal;
  double sum = 0, square = 0, stated = 0;
  constexpr int kRepetitions = 400;
  for (int k = 0; k < kRepetitions; ++k) {
    RatioSum r;
    for (int c = 0; c < 50; ++c) {
      const double offset = normal(rng);
      double total = 0;
      for (int t = 0; t < 20; ++t) total += 3 + offset + normal(rng);
      r.add(total, 20);
    }
    const Estimate e = r.result();
    sum += e.value, square += e.value * e.value, stated += e.error / kRepetitions;
  }
  const double spread = std::sqrt(square / kRepetitions - std::pow(sum / kRepetitions, 2));
  EXPECT_NEAR(stated / spread, 1, 0.15);  // the spread itself is known to 1/sqrt(2 * 400) = 3.5 %
}

TEST(DensityHistogram, BinsByHalfDecades) {
  // 0 is dead; 1e-7 and below in the first bin; 1 in the last
  const auto bins = density_histogram({0, 1, 0, 20, 40'000'000, 20'000'000, 12'000'000, 13'000'000}, 40'000'000);
  EXPECT_EQ(bins, (std::vector<int64_t>{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3}));  // 10^-0.5 = 0.316: 12.6M
}

}  // namespace
}  // namespace gsae::test
