#include "kernels/embedding.h"

#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct Embedding : OnDevice {
  // What embedding() or the next synchronize() throws; "" if nothing.
  std::string message(Tensor x, Tensor table, const std::vector<int32_t>& tokens) {
    try {
      embedding(ctx, x, table, on_device(ctx, tokens), 1);
      ctx.synchronize();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
};
ON_DEVICES(Embedding);

// Exact: one product of representable numbers, rounded once.
TEST_P(Embedding, GathersAndScales) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t d : {1, 19, 64, 512, 516, 1024, 1032}) {  // one access a thread, then a second one
      const int64_t vocab = 37, n = 50;                          // more rows than one range, a ragged last one
      const auto table = uniform(vocab * d, 1, dtype, -3, 3);
      std::vector<int32_t> tokens(n);
      for (int64_t r = 0; r < n; ++r) tokens[r] = static_cast<int32_t>((r * 29) % vocab);
      std::vector<float> want;
      for (const int32_t t : tokens)
        for (int64_t c = 0; c < d; ++c) want.push_back(table[t * d + c] * 59.75f);
      Guarded x(ctx, DType::kF32, {n, d});
      embedding(ctx, x, Guarded(ctx, dtype, {vocab, d}, table), on_device(ctx, tokens), 59.75f);
      EXPECT_EQ(x.read(), want) << d;
    }
}

TEST_P(Embedding, RefusesTokensOutsideTheVocabulary) {
  Guarded table(ctx, DType::kF32, {4, 2}, std::vector<float>(8)), x(ctx, DType::kF32, {3, 2});
  for (const int32_t bad : {-1, 4, 2147483647, -2147483647 - 1})
    EXPECT_EQ(message(x, table, {0, 3, bad}),
              "token " + std::to_string(bad) + " at position 2 is outside the vocabulary of 4: wrong tokenizer?");
  EXPECT_EQ(message(x, table, {0, 3, 1}), "");  // the fault is forgotten once it was thrown
}

// Of several the first, whatever the order of the threads; and what stands beside it is right.
TEST_P(Embedding, NamesTheFirstTokenOutside) {
  Guarded table(ctx, DType::kBF16, {4, 8}, std::vector<float>(32, 2.0f)), x(ctx, DType::kF32, {300, 8});
  std::vector<int32_t> tokens(300, 1);
  tokens[17] = 9, tokens[18] = -5, tokens[250] = 4;
  EXPECT_EQ(message(x, table, tokens), "token 9 at position 17 is outside the vocabulary of 4: wrong tokenizer?");
  if (on_cuda()) {
    const auto rows = x.read();
    for (int64_t r = 0; r < 300; ++r)
      for (int64_t c = 0; c < 8; ++c) {
        if (tokens[r] == 1) EXPECT_EQ(rows[r * 8 + c], 2.0f);
        else EXPECT_TRUE(std::isnan(rows[r * 8 + c]));
      }
  }
}

TEST_P(Embedding, RefusesDamagedRowsThatAreUsed) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t d : {33, 40})
      for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
        std::vector<float> rows(40 * d, 1.0f);
        rows[20 * d + d - 1] = bad, rows[31 * d] = bad;
        Guarded table(ctx, dtype, {40, d}, rows), x(ctx, DType::kF32, {3, d});
        EXPECT_EQ(message(x, table, {7, 21, 0}), "");
        EXPECT_EQ(message(x, table, {7, 20, 31}),
                  "the embedding of token 20 holds NaN or infinity: the checkpoint is damaged, fetch it again");
        EXPECT_EQ(message(x, table, {31, 20, 31}),
                  "the embedding of token 31 holds NaN or infinity: the checkpoint is damaged, fetch it again");
      }
}

TEST_P(Embedding, RefusesWrongShapes) {
  Guarded table(ctx, DType::kF32, {4, 2}), x(ctx, DType::kF32, {3, 3});
  EXPECT_THROW(embedding(ctx, x, table, on_device<int32_t>(ctx, {0, 1, 2}), 1), Error);
}

}  // namespace
}  // namespace gsae::test
