#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "io/safetensors.h"
#include "io/tokenizer.h"
#include "sae/sae_file.h"
#include "tests/harness.h"
#include "tests/report_fixture.h"
#include "tools/token_text.h"

namespace gsae::test {
namespace {

using nlohmann::json;

// Activations of one latent at every row of the golden's contexts, from `activations` and the encoder in doubles.
class Recomputed {
 public:
  explicit Recomputed(const TempFolder& dir) : sae_(std::move(load_saes(kGoldenSae).at(0))) {
    const std::string file = dir / "activations.safetensors";
    const CommandResult r = run_command({"activations", "--model", "demo", "--layer", "3", "--site", "res", "--data",
                                         kGoldenTokens, "--keep-special", "--quiet", "--out", file});
    if (r.status != 0) throw Error(r.err);
    const SafetensorsFile stored(file);
    x_ = to_f32(stored.get("res.3"));
    const auto* t = reinterpret_cast<const int32_t*>(stored.get("tokens").data);
    tokens_.assign(t, t + stored.get("tokens").size());
  }

  const std::vector<int32_t>& tokens() const { return tokens_; }
  static bool special(int32_t token) { return token <= 2; }

  std::vector<double> of(int64_t latent) const {
    const int64_t d = sae_.params.width(), F = sae_.params.latents();
    const float *W = sae_.params.W_enc.data<float>(), theta = sae_.params.threshold.data<float>()[latent];
    std::vector<double> f(tokens_.size());
    for (size_t r = 0; r < f.size(); ++r) {
      double z = sae_.params.b_enc.data<float>()[latent];
      for (int64_t c = 0; c < d; ++c) z += double(x_[r * size_t(d) + size_t(c)]) * W[c * F + latent];
      f[r] = z > theta && !special(tokens_[r]) ? z : 0;
    }
    return f;
  }

 private:
  LoadedSae sae_;
  std::vector<float> x_;
  std::vector<int32_t> tokens_;
};

constexpr int64_t kT = 256;

// Where an example is among all rows: contexts come shuffled, but no two share a stretch of tokens.
int64_t row_of(const json& example, const json& page, const std::vector<int32_t>& tokens, const TokenTexts& texts) {
  const auto begin = example[3].get<int64_t>();
  const json& ids = example[4];
  for (int64_t context = 0; context < int64_t(tokens.size()) / kT; ++context) {
    bool same = true;
    for (size_t t = 0; t < ids.size() && same; ++t)
      same = page["tokens"][ids[t].get<size_t>()] == texts.text(tokens[size_t(context * kT + begin) + t]);
    if (same) return context * kT + begin;
  }
  return -1;
}

// Every value of the page against the encoder computed apart: shading, peaks, counts, densities, the largest ones.
// Values are shown to three or four digits; f32 products of 192 terms move them by less.
TEST(ReportValues, AreThoseOfTheEncoder) {
  const TempFolder dir;
  const Recomputed want(dir);
  const std::string page = dir / "page.html";
  const CommandResult r =
      run_command(on_golden({"report", kGoldenSae, "--out", page, "--latents", "top", "--count", "12"}));
  ASSERT_EQ(r.status, 0) << r.err;
  const json data = data_of_page(read_bytes(page)), &sae = data["saes"][0];
  const TokenTexts texts(demo_data("model/tokenizer.model"), 4096);
  ASSERT_EQ(sae["dashboards"].size(), 12u);
  EXPECT_EQ(sae["seen"]["contexts"], 32);
  EXPECT_EQ(sae["seen"]["tokens"], std::count_if(want.tokens().begin(), want.tokens().end(),
                                                 [](int32_t t) { return !Recomputed::special(t); }));
  int64_t shaded = 0;
  for (const json& latent : sae["dashboards"]) {
    SCOPED_TRACE(latent["id"]);
    const std::vector<double> f = want.of(latent["id"]);
    std::map<int64_t, double> largest;  // of each context
    int64_t count = 0;
    for (size_t i = 0; i < f.size(); ++i)
      if (f[i] > 0) ++count, largest[int64_t(i) / kT] = std::max(largest[int64_t(i) / kT], f[i]);
    EXPECT_NEAR(latent["count"].get<double>(), double(count), 1);  // one z may lie at its threshold
    std::vector<double> sorted;
    for (const auto& [context, value] : largest) sorted.push_back(value);
    std::sort(sorted.rbegin(), sorted.rend());
    ASSERT_EQ(latent["top"].size(), std::min<size_t>(10, sorted.size()));
    for (size_t k = 0; k < latent["top"].size(); ++k)
      EXPECT_NEAR(latent["top"][k][0].get<double>(), sorted[k], 6e-4 * sorted[k]) << k;
    int64_t in_bands = 0, in_bins = 0;
    for (const json& n : latent["histogram"]) in_bins += n.get<int64_t>();
    EXPECT_EQ(in_bins, latent["count"]);

    const auto check = [&](const json& e) {
      const int64_t first = row_of(e, data, want.tokens(), texts);
      ASSERT_GE(first, 0) << "no context holds this example";
      std::map<size_t, double> shown;
      for (size_t i = 0; i < e[5].size(); i += 2) shown[e[5][i].get<size_t>()] = e[5][i + 1].get<double>();
      for (size_t t = 0; t < e[4].size(); ++t) {
        const double expected = f[size_t(first) + t];
        EXPECT_NEAR(shown.contains(t) ? shown[t] : 0, expected, 6e-3 * expected) << t;
        shaded += expected > 0;
      }
      const auto peak = size_t(first + e[2].get<int64_t>() - e[3].get<int64_t>());
      EXPECT_NEAR(e[0].get<double>(), f[peak], 6e-4 * f[peak]);
    };
    for (const json& e : latent["top"]) check(e);
    for (const json& band : latent["bands"]) {
      in_bands += band["count"].get<int64_t>();
      for (const json& e : band["examples"]) {
        check(e);
        EXPECT_GE(e[0].get<double>(), band["low"].get<double>() * 0.999);
        EXPECT_LE(e[0].get<double>(), band["high"].get<double>() * 1.001);
      }
    }
    EXPECT_EQ(in_bands, latent["count"]);
  }
  EXPECT_GT(shaded, 500);
}

struct ReportOnGpu : OnDevice {};
ON_GPUS(ReportOnGpu);

// The same numbers on every device: integers to the digit, values to the digits shown.
TEST_P(ReportOnGpu, AgreesWithTheCpu) {
  const TempFolder dir;
  std::vector<int32_t> ids;
  constexpr int64_t B = 3, T = 24;
  for (int64_t i = 0; i < B * T; ++i) ids.push_back(i % T == 0 ? 2 : int32_t(3 + i * 7919 % 1000));
  SafetensorsWriter tokens(dir / "tokens.safetensors", {{"tokens", "I32", {B, T}}});
  tokens.append("tokens", ids.data(), ids.size() * sizeof(int32_t));
  tokens.close();
  const auto run = [&](const std::string& device) {
    const CommandResult r = run_command({"report",    kGoldenSae, "--out",   dir / (device + ".html"),
                                         "--latents", "top",      "--count", "4",
                                         "--model",   "demo",     "--layer", "3",
                                         "--site",    "res",      "--data",  dir / "tokens.safetensors",
                                         "--context", "24",       "--split", "all",
                                         "--quiet",   "--device", device});
    EXPECT_EQ(r.status, 0) << r.err;
    return data_of_page(read_bytes(dir / (device + ".html")));
  };
  const json cpu = run("cpu"), cuda = run("cuda");
  ASSERT_EQ(cuda["saes"][0]["dashboards"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const json &a = cuda["saes"][0]["dashboards"][i], &b = cpu["saes"][0]["dashboards"][i];
    EXPECT_EQ(a["id"], b["id"]);
    EXPECT_EQ(a["count"], b["count"]);
    EXPECT_NEAR(a["max"].get<double>(), b["max"].get<double>(), 2e-3 * b["max"].get<double>());
    ASSERT_EQ(a["top"].size(), b["top"].size());
    for (size_t k = 0; k < a["top"].size(); ++k) {
      EXPECT_EQ(a["top"][k][2], b["top"][k][2]);
      EXPECT_EQ(a["top"][k][4].size(), b["top"][k][4].size());
    }
    for (size_t k = 0; k < a["raises"].size(); ++k)
      EXPECT_NEAR(a["raises"][k][1].get<double>(), b["raises"][k][1].get<double>(), 2e-2);
  }
}

}  // namespace
}  // namespace gsae::test
