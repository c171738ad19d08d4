#include "tools/logit_attribution.h"

#include "io/safetensors.h"
#include "tests/files.h"
#include "tests/harness.h"
#include "tests/paths.h"
#include "tools/lay_out.h"

namespace gsae::test {
namespace {

struct LogitAttributionOf : OnDevice {};
ON_DEVICES(LogitAttributionOf);

template <class T> std::vector<T> values(const SafetensorsFile& file, const std::string& name) {
  const StoredTensor& t = file.get(name);
  const T* data = reinterpret_cast<const T*>(t.data);
  return {data, data + t.size()};
}

// What transformers' modules computed in f64 (tests/data/make_attribution.py). Sums of 192 products, of 256 more for
// att, in f32: 1e-5 of the largest logit; the tokens at either end lie further apart.
TEST_P(LogitAttributionOf, ReproducesTheGolden) {
  const Gemma2 model(ctx, demo_data("model"), DType::kF32);
  Buffer memory;
  const auto place = allocate<AttributionMemory>(ctx.device(), memory, model);
  const SafetensorsFile golden(test_data("attribution/expected.safetensors"));
  for (const auto& [name, site, layer] :
       {std::tuple("res.3", Site::kRes, 3), {"mlp.1", Site::kMlp, 1}, {"att.2", Site::kAtt, 2}}) {
    SCOPED_TRACE(name);
    const std::string at = std::string(name) + "/";
    auto rows = values<float>(golden, at + "rows");
    const int64_t width = model.site_width(site);
    const auto got = attribute_logits(ctx, model, site, layer, view(rows.data(), {3, width}), 10, *place);
    ASSERT_EQ(got.size(), 3u);
    for (const auto& [end, effects] :
         {std::pair("top", &LogitAttribution::top), {"bottom", &LogitAttribution::bottom}}) {
      const auto tokens = values<int32_t>(golden, at + end);
      const auto logits = values<float>(golden, at + end + "_logits");
      for (size_t r = 0; r < 3; ++r) {
        const auto& found = got[r].*effects;
        ASSERT_EQ(found.size(), 10u);
        for (size_t k = 0; k < 10; ++k) {
          EXPECT_EQ(found[k].token, tokens[r * 10 + k]) << end << " " << r << " " << k;
          EXPECT_NEAR(found[k].logit, logits[r * 10 + k], 1e-5 * std::fabs(logits[r * 10])) << end << " " << r;
        }
      }
    }
    int64_t all = 0;
    for (const int64_t n : got[0].histogram) all += n;
    EXPECT_EQ(all, model.config().vocab);
    EXPECT_EQ(got[0].lowest, got[0].bottom[0].logit);
    EXPECT_EQ(got[0].highest, got[0].top[0].logit);
  }
}

// More rows than the memory holds at a time: each as alone.
TEST_P(LogitAttributionOf, RowsInTiles) {
  const Gemma2 model(ctx, demo_data("model"), DType::kF32);
  Buffer memory;
  const auto place = allocate<AttributionMemory>(ctx.device(), memory, model);
  const int64_t n = AttributionMemory::tile(model) + 3, d = model.config().width;
  auto rows = uniform(n * d, 3, DType::kF32, -1, 1);
  const auto all = attribute_logits(ctx, model, Site::kRes, 0, view(rows.data(), {n, d}), 3, *place);
  ASSERT_EQ(int64_t(all.size()), n);
  for (const int64_t r : {int64_t{0}, n - 4, n - 1}) {
    const auto one = attribute_logits(ctx, model, Site::kRes, 0, view(rows.data() + r * d, {1, d}), 3, *place);
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(all[size_t(r)].top[k].token, one[0].top[k].token);
      EXPECT_NEAR(all[size_t(r)].top[k].logit, one[0].top[k].logit, 1e-4);
    }
  }
}

TEST_P(LogitAttributionOf, NoneForTheInputOfTheMlp) {
  const Gemma2 model(ctx, demo_data("model"), DType::kF32);
  Buffer memory;
  const auto place = allocate<AttributionMemory>(ctx.device(), memory, model);
  std::vector<float> row(192, 1), wrong(10, 1);
  EXPECT_FALSE(has_logit_attribution(Site::kMlpIn));
  EXPECT_TRUE(attribute_logits(ctx, model, Site::kMlpIn, 0, view(row.data(), {1, 192}), 3, *place).empty());
  EXPECT_ERROR(attribute_logits(ctx, model, Site::kAtt, 0, view(row.data(), {1, 192}), 3, *place), "width 256");
}

}  // namespace
}  // namespace gsae::test
