#include "kernels/embedding.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

Tensor ids(std::vector<int32_t>& v) { return view(v.data(), {static_cast<int64_t>(v.size())}); }

// Exact: one product of representable numbers, rounded once.
TEST(EmbeddingCpu, GathersAndScales) {
  Context ctx(Device::kCpu);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t vocab = 37, d = 19, n = 50;  // more rows than one range, a ragged last one
    const auto table = uniform(vocab * d, 1, dtype, -3, 3);
    std::vector<int32_t> tokens(n);
    for (int64_t r = 0; r < n; ++r) tokens[r] = static_cast<int32_t>((r * 29) % vocab);
    std::vector<float> want;
    for (const int32_t t : tokens)
      for (int64_t c = 0; c < d; ++c) want.push_back(table[t * d + c] * 59.75f);
    Guarded x(ctx, DType::kF32, {n, d});
    embedding(ctx, x, Guarded(ctx, dtype, {vocab, d}, table), ids(tokens), 59.75f);
    EXPECT_EQ(x.read(), want);
  }
}

TEST(EmbeddingCpu, RefusesTokensOutsideTheVocabulary) {
  Context ctx(Device::kCpu);
  Guarded table(ctx, DType::kF32, {4, 2}, std::vector<float>(8)), x(ctx, DType::kF32, {3, 2});
  for (const int32_t bad : {-1, 4, 2147483647}) {
    std::vector<int32_t> tokens{0, 3, bad};
    EXPECT_THROW(embedding(ctx, x, table, ids(tokens), 1), Error) << bad;
  }
}

TEST(EmbeddingCpu, RefusesDamagedRowsThatAreUsed) {
  Context ctx(Device::kCpu);
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const float bad : {std::nanf(""), HUGE_VALF, -HUGE_VALF}) {
      std::vector<float> rows(40 * 33, 1.0f);
      rows[20 * 33 + 32] = bad;
      Guarded table(ctx, dtype, {40, 33}, rows), x(ctx, DType::kF32, {2, 33});
      std::vector<int32_t> used{7, 20}, unused{7, 21};
      EXPECT_NO_THROW(embedding(ctx, x, table, ids(unused), 1));
      try {
        embedding(ctx, x, table, ids(used), 1);
        FAIL() << "accepted " << bad;
      } catch (const Error& e) {
        EXPECT_NE(std::string(e.what()).find("token 20 "), std::string::npos) << e.what();
      }
    }
}

TEST(EmbeddingCpu, RefusesWrongShapes) {
  Context ctx(Device::kCpu);
  Guarded table(ctx, DType::kF32, {4, 2}), x(ctx, DType::kF32, {3, 3});
  std::vector<int32_t> tokens{0, 1, 2};
  EXPECT_THROW(embedding(ctx, x, table, ids(tokens), 1), Error);
}

}  // namespace
}  // namespace gsae::test
