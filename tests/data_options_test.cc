#include "tools/data_options.h"

#include <gtest/gtest.h>

namespace gsae {
namespace {

GemmaConfig six_layers() {
  GemmaConfig c;
  c.layers = 6;
  c.max_positions = 1024;
  return c;
}

TEST(DataOptions, LayersAndRanges) {
  const GemmaConfig c = six_layers();
  EXPECT_EQ(parse_layers("3", c), (std::vector<int64_t>{3}));
  EXPECT_EQ(parse_layers("0-5", c), (std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(parse_layers("4,1-2,2", c), (std::vector<int64_t>{4, 1, 2}));
  for (const char* bad : {"6", "-1", "", "2-", "3-2", "1-6", "x", "1,", "99999999999999999999", "1.0", " 1", "-"})
    EXPECT_THROW(parse_layers(bad, c), UsageError) << bad;
  try {
    parse_layers("20", c);
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("0 to 5"), std::string::npos) << e.what();
  }
}

TEST(DataOptions, Sites) {
  EXPECT_EQ(parse_sites("res,mlp,res"), (std::vector<Site>{Site::kRes, Site::kMlp}));
  EXPECT_THROW(parse_sites("resid"), UsageError);
  EXPECT_THROW(parse_sites(""), UsageError);
}

TEST(DataOptions, ContextDefaultsAndBounds) {
  GemmaConfig c = six_layers();
  c.max_positions = 8192;
  DataOptions o;
  EXPECT_EQ(o.context_for(c), 1024);
  o.model = "demo";
  EXPECT_EQ(o.context_for(c), 256);
  c.max_positions = 128;
  EXPECT_EQ(o.context_for(c), 128);
  o.context = 128;
  EXPECT_EQ(o.context_for(c), 128);
  o.context = 129;
  EXPECT_THROW(o.context_for(c), UsageError);
  o.context = 1;
  EXPECT_THROW(o.context_for(c), UsageError);
}

TEST(DataOptions, StreamTakesTheModelsSpecialTokens) {
  GemmaConfig c = six_layers();
  c.vocab = 4096, c.bos = 7, c.eos = 8, c.pad = 9;
  DataOptions o;
  o.model = "demo", o.data = {"a.jsonl"}, o.skip_bad = true, o.eval_fraction = 0.1;
  CommonOptions common;
  common.seed = 5;
  const TokenStreamOptions s = o.stream("dir", c, common);
  EXPECT_EQ(s.files, o.data);
  EXPECT_EQ(s.tokenizer, "dir/tokenizer.model");
  EXPECT_EQ(s.context, 256);
  EXPECT_EQ(s.bos, 7);
  EXPECT_EQ(s.eos, 8);
  EXPECT_EQ(s.pad, 9);
  EXPECT_EQ(s.vocab_size, 4096);
  EXPECT_EQ(s.seed, 5u);
  EXPECT_EQ(s.eval_fraction, 0.1);
  EXPECT_TRUE(s.skip_bad);
  EXPECT_GE(s.threads, 1);
}

}  // namespace
}  // namespace gsae
