#include "tools/latent_choice.h"

#include "sae/decoder_neighbours.h"
#include "tests/files.h"
#include "tests/harness.h"
#include "tests/values_on_device.h"
#include "tools/lay_out.h"
#include "tools/options.h"
#include "tools/token_text.h"

namespace gsae::test {
namespace {

struct LatentsOf : OnDevice {};
ON_DEVICES(LatentsOf);

// Latents with these numbers of activations, each of the value given, on rows 0, 1, ...
LatentSummaries summaries(Context& ctx, const std::vector<std::pair<int, float>>& latents, int64_t rows) {
  const auto F = static_cast<int64_t>(latents.size());
  Buffer memory;
  const Examples e = *allocate<Examples>(ctx.device(), memory, F);
  clear_examples(ctx, e);
  std::vector<float> f(size_t(rows * F));
  std::vector<int32_t> numbers;
  for (int64_t r = 0; r < rows; ++r) {
    numbers.push_back(int32_t(r));
    for (int64_t i = 0; i < F; ++i)
      if (r < latents[size_t(i)].first) f[size_t(r * F + i)] = latents[size_t(i)].second;
  }
  Guarded values(ctx, DType::kF32, {rows, F}, f), row = on_device(ctx, numbers);
  add_examples(ctx, e, values, row, 4, 0);
  return LatentSummaries(ctx, e);
}

// 400 tokens: dense is more than 4 of them.
TEST_P(LatentsOf, TopIsBySumTheDenseLast) {
  const auto s = summaries(ctx, {{0, 0}, {4, 1}, {5, 9}, {2, 3}, {1, 4}, {100, 1}, {4, 1}}, 400);
  const LatentChoice top = LatentChoice::parse("top", 20);
  // sums 4, 45 (dense), 6, 4, 100 (dense), 4
  EXPECT_EQ(choose_latents(top, s, 400, 0, ""), (std::vector<int64_t>{3, 1, 4, 6, 5, 2}));
  EXPECT_EQ(choose_latents(LatentChoice::parse("top", 2), s, 400, 0, ""), (std::vector<int64_t>{3, 1}));
}

TEST_P(LatentsOf, RandomIsOfTheLiveByTheSeed) {
  std::vector<std::pair<int, float>> latents(60, {1, 1});
  for (size_t i = 0; i < 60; i += 3) latents[i].first = 0;
  const auto s = summaries(ctx, latents, 4);
  const LatentChoice random = LatentChoice::parse("random", 10);
  const auto chosen = choose_latents(random, s, 4, 1, "");
  EXPECT_EQ(chosen.size(), 10u);
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  EXPECT_EQ(std::adjacent_find(chosen.begin(), chosen.end()), chosen.end());
  for (const int64_t i : chosen) EXPECT_NE(i % 3, 0) << "dead";
  EXPECT_EQ(choose_latents(random, s, 4, 1, ""), chosen);
  EXPECT_NE(choose_latents(random, s, 4, 2, ""), chosen);
  EXPECT_EQ(choose_latents(LatentChoice::parse("random", 100), s, 4, 1, "").size(), 40u);
}

TEST_P(LatentsOf, ListedAreThoseAndNoOthers) {
  const auto s = summaries(ctx, {{0, 0}, {1, 1}, {1, 1}}, 4);
  EXPECT_EQ(choose_latents(LatentChoice::parse("2,0,2", 1), s, 4, 0, ""), (std::vector<int64_t>{2, 0}));
  EXPECT_ERROR(choose_latents(LatentChoice::parse("1,3", 1), s, 4, 0, "the.npz"), "the.npz: has latents 0 to 2, not 3");
  EXPECT_TRUE(choose_latents(LatentChoice::parse("none", 1), s, 4, 0, "").empty());
  EXPECT_ERROR(LatentChoice::parse("1,2", 5).require_count("--latents 1,2"), "--count 5: is the number of top");
  LatentChoice::parse("random", 5).require_count("--latents random");
  for (const char* wrong : {"", "tops", "1,", "-1", "1.5", "1;2"})
    EXPECT_THROW(LatentChoice::parse(wrong, 1), UsageError) << wrong;
}

// Exact: small integers; one row of zeros, two equal ones, one that is twice another.
TEST_P(LatentsOf, NeighboursByCosine) {
  const std::vector<float> rows{3,      0, 0, 0, /**/ 0, 4, 0, 0, /**/ 3,  4, 0, 0,
                                /**/ 0, 0, 0, 0, /**/ 6, 8, 0, 0, /**/ -3, 0, 0, 0};
  Guarded W(ctx, DType::kF32, {6, 4}, rows);
  for (const int64_t room : {10, 25}) {  // one latent at a time, and two
    Guarded scratch(ctx, DType::kF32, {room});
    const std::vector<int64_t> asked{0, 2, 3};
    const auto got = decoder_neighbours(ctx, W, asked, 3, scratch);
    const auto expect = [&](size_t k, std::vector<int64_t> latents, std::vector<float> cosines) {
      ASSERT_EQ(got[k].size(), latents.size());
      for (size_t i = 0; i < latents.size(); ++i) {
        EXPECT_EQ(got[k][i].latent, latents[i]) << k << " " << i;
        EXPECT_FLOAT_EQ(got[k][i].cosine, cosines[i]) << k << " " << i;
      }
    };
    expect(0, {2, 4, 1}, {0.6f, 0.6f, 0});
    expect(1, {4, 1, 0}, {1, 0.8f, 0.6f});
    expect(2, {0, 1, 2}, {0, 0, 0});
  }
  Guarded small(ctx, DType::kF32, {9});
  EXPECT_THROW(decoder_neighbours(ctx, W, std::vector<int64_t>{0}, 3, small), Error);
}

// The encoder of some latents is theirs, in the order asked for.
TEST_P(LatentsOf, SelectedLatentsAreTheirs) {
  const int64_t d = 3, F = 5;
  Buffer memory, selected;
  const SaeParameters sae = *allocate<SaeParameters>(ctx.device(), memory, d, F);
  const auto fill = [&](Tensor t, float first) {
    std::vector<float> v(size_t(t.size()));
    for (size_t i = 0; i < v.size(); ++i) v[i] = first + float(i);
    upload(ctx, t.reshape({t.size()}), v);
  };
  fill(sae.W_enc, 0), fill(sae.W_dec, 100), fill(sae.b_enc, 200), fill(sae.b_dec, 300), fill(sae.threshold, 400);
  const SaeParameters some = select_latents(ctx, sae, std::vector<int64_t>{4, 1}, selected);
  EXPECT_EQ(download<float>(ctx, some.W_enc), (std::vector<float>{4, 1, 9, 6, 14, 11}));
  EXPECT_EQ(download<float>(ctx, some.W_dec), (std::vector<float>{112, 113, 114, 103, 104, 105}));
  EXPECT_EQ(download<float>(ctx, some.b_enc), (std::vector<float>{204, 201}));
  EXPECT_EQ(download<float>(ctx, some.b_dec), (std::vector<float>{300, 301, 302}));
  EXPECT_EQ(download<float>(ctx, some.threshold), (std::vector<float>{404, 401}));
  EXPECT_THROW(select_latents(ctx, sae, std::vector<int64_t>{5}, selected), Error);
}

TEST(TokenText, PiecesAsPeopleReadThem) {
  EXPECT_EQ(readable_piece("\xE2\x96\x81the"), " the");
  EXPECT_EQ(readable_piece("<0x0A>"), "\n");
  EXPECT_EQ(readable_piece("<0x41>"), "A");
  EXPECT_EQ(readable_piece("<0xE2>"), "\\xE2");
  EXPECT_EQ(readable_piece("<0x07>"), "\\x07");
  EXPECT_EQ(readable_piece("<bos>"), "<bos>");
  EXPECT_EQ(readable_piece("<0xZZ>"), "<0xZZ>");
  EXPECT_EQ(readable_piece("caf\xC3\xA9\x1b"), "caf\xC3\xA9\\x1B");
}

}  // namespace
}  // namespace gsae::test
