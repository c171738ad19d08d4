#include "kernels/softcap.h"

#include <omp.h>

#include "tests/harness.h"

namespace gsae::test {
namespace {

// Bounded f32: the 4e-7 of tanh and two roundings; far below, at, and far beyond the cap; a ragged end.
TEST(Softcap, MatchesReference) {
  constexpr float kCap = 30;
  for (const float reach : {1e-3f, 40.0f, 1e6f}) {
    const int64_t n = 40001;
    auto x = uniform(n, 1, DType::kF32, -reach, reach);
    x[0] = 0, x[1] = std::numeric_limits<float>::infinity();
    std::vector<double> want;
    for (const float v : x) want.push_back(kCap * std::tanh(double(v) / kCap));
    Context ctx(Device::kCpu);
    Guarded out(ctx, DType::kF32, {n}, x);
    softcap(ctx, out, kCap);
    expect_close(out.read(), want, 6e-7);

    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    Guarded one(ctx, DType::kF32, {n}, x);
    softcap(ctx, one, kCap);
    omp_set_num_threads(threads);
    EXPECT_EQ(one.read(), out.read());
  }
}

TEST(Softcap, RefusesACapThatIsNotPositive) {
  Context ctx(Device::kCpu);
  Guarded x(ctx, DType::kF32, {2, 3});
  EXPECT_THROW(softcap(ctx, x, 0), Error);
  EXPECT_THROW(softcap(ctx, x, -1), Error);
  EXPECT_THROW(softcap(ctx, Guarded(ctx, DType::kBF16, {2, 3}), 30), Error);
}

}  // namespace
}  // namespace gsae::test
