// Tiles that other GPUs would get for wide heads, by what a block may have of shared memory.

#include "kernels/attention_cuda.h"
#include "kernels/cuda.h"
#include "tests/attention_reference.h"

namespace gsae::test {
namespace {

struct AttentionTiles : testing::TestWithParam<int> {  // KiB
  void SetUp() override {
    require(Device::kCuda);
    if (!available(Device::kCuda)) return;
    int bytes = 0;
    CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    if (bytes < GetParam() << 10) GTEST_SKIP() << "this GPU has " << (bytes >> 10) << " KiB of shared memory a block";
  }
};

TEST_P(AttentionTiles, MatchReference) {
  Context ctx(Device::kCuda);
  const AttentionCase sliding{"", 1, 4, 2, 133, 256, {.scale = 0.0625f, .softcap = 50, .window = 37}, 2};
  const AttentionCase full{"", 2, 1, 1, 129, 256, {.scale = 0.0625f}, 2};
  for (const AttentionCase& c : {sliding, full}) {
    const AttentionOperands x(c, DType::kBF16);
    std::vector<double> want, bound;
    attention_reference(c, x, Arithmetic::kTensorCores, want, bound);
    constexpr DType t = DType::kBF16;
    Guarded q(ctx, t, {c.B, c.heads, c.T, c.size}, x.q), k(ctx, t, {c.B, c.kv_heads, c.T, c.size}, x.k),
        v(ctx, t, {c.B, c.kv_heads, c.T, c.size}, x.v), out(ctx, t, {c.B * c.T, c.heads * c.size});
    cuda::attention_bf16(ctx, out, q, k, v, c.options, GetParam() << 10);
    expect_close(out.read(), want, 0x1p-8, 1 + 0x1p-8, bound);  // rounded once more
  }
}

// sm_86, sm_89, sm_120; sm_80; sm_90, sm_100
INSTANTIATE_TEST_SUITE_P(cuda, AttentionTiles, testing::Values(99, 163, 227),
                         [](const auto& p) { return std::to_string(p.param) + "KiB"; });

}  // namespace
}  // namespace gsae::test
