// The tensor-core wrappers, each against a statement of what it moves that does not come from
// kernels/mma.cuh. Runs on the GPU, and on the emulation: where both pass, both have one layout.

#include "kernels/launch.h"
#include "kernels/mma.cuh"
#include "tests/harness.h"

namespace gsae::test {
namespace {

// The distribution in the words of CUTLASS (cute/atom/mma_traits_sm80.hpp, SM80_16x8x16): the
// column-major index of value v of a lane is linear in the digits of the lane and of v.
int a_index(int lane, int v) {  // m + 16 k
  return lane % 4 * 32 + lane / 4 * 1 + v % 2 * 16 + v / 2 % 2 * 8 + v / 4 * 128;
}
int b_index(int lane, int v) {  // n + 8 k
  return lane % 4 * 16 + lane / 4 * 1 + v % 2 * 8 + v / 2 * 64;
}
int d_index(int lane, int v) {  // m + 16 n
  return lane % 4 * 32 + lane / 4 * 1 + v % 2 * 16 + v / 2 * 8;
}

__global__ void mma_kernel(float* d, const uint32_t* a, const uint32_t* b) {
  const int lane = threadIdx.x;
  uint32_t fa[4];
  float fd[4];
  for (int i = 0; i < 4; ++i) fa[i] = a[4 * lane + i], fd[i] = d[4 * lane + i];
  mma_m16n8k16_bf16(fd, fa, b[2 * lane], b[2 * lane + 1]);
  for (int i = 0; i < 4; ++i) d[4 * lane + i] = fd[i];
}

std::vector<float> by_lane(const std::vector<float>& matrix, int values, int (*index)(int, int)) {
  std::vector<float> v;
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < values; ++i) v.push_back(matrix[index(lane, i)]);
  return v;
}

// Exact: integers. No two rows or columns are alike, so no two lanes or registers may be exchanged.
struct Mma : OnDevice {};
INSTANTIATE_TEST_SUITE_P(Devices, Mma, testing::Values(Device::kCuda), device_name);

TEST_P(Mma, MultipliesWithTheDocumentedFragments) {
  const auto a = integers(16 * 16, 1, -8, 8), b = integers(8 * 16, 2, -8, 8), c = integers(16 * 8, 3, -99, 99);
  Guarded ga(ctx, DType::kBF16, {32, 8}, by_lane(a, 8, a_index));
  Guarded gb(ctx, DType::kBF16, {32, 4}, by_lane(b, 4, b_index));
  Guarded gd(ctx, DType::kF32, {32, 4}, by_lane(c, 4, d_index));
  launch(mma_kernel, 1, 32, 0, ctx.cuda().stream, Tensor(gd).data<float>(), reinterpret_cast<uint32_t*>(Tensor(ga).ptr),
         reinterpret_cast<uint32_t*>(Tensor(gb).ptr));
  std::vector<float> want = c;
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n)
      for (int k = 0; k < 16; ++k) want[m + 16 * n] += a[m + 16 * k] * b[n + 8 * k];
  EXPECT_EQ(gd.read(), by_lane(want, 4, d_index));
}

// Copies a (32, 8) bf16 matrix to shared memory by cp.async, and loads it as four 8 x 8 matrices.
template <bool kTranspose> __global__ void ldmatrix_kernel(uint32_t* out, const uint16_t* in) {
  uint16_t* tile = dynamic_shared<uint16_t>();
  const int lane = threadIdx.x;
  cp_async_16(tile + 8 * lane, in + 8 * lane);
  cp_async_16(tile + 256 + 8 * lane, in, false);  // zeros
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  uint32_t r[4];
  if (kTranspose) ldmatrix_x4_trans(r, tile + 8 * lane);
  else ldmatrix_x4(r, tile + 8 * lane);
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = r[i];
  out[128 + lane] = tile[256 + 8 * lane] | tile[256 + 8 * lane + 7];
}

// PTX ISA, ldmatrix: four threads together load a row, two neighbouring elements each, thread 0 the
// first; with .trans, a column.
template <bool kTranspose> void check_ldmatrix(Context& ctx) {
  std::vector<float> in(256), want;
  for (int i = 0; i < 256; ++i) in[i] = float(i);  // bf16 holds 0..256 exactly
  for (int lane = 0; lane < 32; ++lane)
    for (int matrix = 0; matrix < 4; ++matrix)
      for (int half = 0; half < 2; ++half) {
        const int row = lane / 4, column = 2 * (lane % 4) + half;
        want.push_back(float(64 * matrix + (kTranspose ? 8 * column + row : 8 * row + column)));
      }
  want.insert(want.end(), 64, 0.0f);
  Guarded gin(ctx, DType::kBF16, {256}, in), out(ctx, DType::kBF16, {320});
  launch(ldmatrix_kernel<kTranspose>, 1, 32, 1024, ctx.cuda().stream, reinterpret_cast<uint32_t*>(Tensor(out).ptr),
         reinterpret_cast<uint16_t*>(Tensor(gin).ptr));
  EXPECT_EQ(out.read(), want);
}
TEST_P(Mma, LdmatrixByRows) { check_ldmatrix<false>(ctx); }
TEST_P(Mma, LdmatrixByColumns) { check_ldmatrix<true>(ctx); }

// PTX ISA, cp.async.wait_group: all but the kPending last groups of the thread are complete. So what the second group
// brings may be read by its thread while the third is under way.
__global__ void groups_kernel(uint16_t* out, const uint16_t* in) {
  uint16_t* tile = dynamic_shared<uint16_t>();
  for (int group = 0; group < 3; ++group) {
    cp_async_16(tile + 8 * (32 * group + threadIdx.x), in + 8 * (32 * group + threadIdx.x));
    cp_async_commit();
  }
  cp_async_wait<1>();
  const auto show = [&](int group) {
    for (int e = 0; e < 8; ++e) out[8 * (32 * group + threadIdx.x) + e] = tile[8 * (32 * group + threadIdx.x) + e];
  };
  show(0), show(1);
  cp_async_wait<0>();
  show(2);
}
TEST_P(Mma, WaitsForGroupsInOrder) {
  const auto values = integers(768, 4, -128, 127);
  Guarded in(ctx, DType::kBF16, {768}, values), out(ctx, DType::kBF16, {768});
  launch(groups_kernel, 1, 32, 3 * 32 * 16, ctx.cuda().stream, reinterpret_cast<uint16_t*>(Tensor(out).ptr),
         reinterpret_cast<uint16_t*>(Tensor(in).ptr));
  EXPECT_EQ(out.read(), values);
}

__global__ void special_kernel(float* exp2, float* tanh, const float* x, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) exp2[i] = exp2_approx(x[i]), tanh[i] = tanh_approx(x[i]);
}

// PTX ISA, ex2 and tanh: the relative errors, and the tables of special values.
TEST_P(Mma, SpecialFunctions) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  std::vector<float> x = uniform(2000, 5, DType::kF32, -20, 20);
  for (int i = 0; i < 1000; ++i) x[i] *= 0x1p-6f * float(i % 7);
  for (const float special : {0.0f, 1.0f, -126.0f, -160.0f, 200.0f, kInfinity, -kInfinity}) x.push_back(special);
  std::vector<double> exp2(x.size()), tanh(x.size());
  for (size_t i = 0; i < x.size(); ++i) exp2[i] = std::exp2(double(x[i])), tanh[i] = std::tanh(double(x[i]));
  const auto n = static_cast<int64_t>(x.size());
  x.push_back(std::numeric_limits<float>::quiet_NaN());
  Guarded in(ctx, DType::kF32, {n + 1}, x), out_exp2(ctx, DType::kF32, {n + 1}), out_tanh(ctx, DType::kF32, {n + 1});
  launch(special_kernel, 1, 64, 0, ctx.cuda().stream, Tensor(out_exp2).data<float>(), Tensor(out_tanh).data<float>(),
         Tensor(in).data<float>(), static_cast<int>(n + 1));
  auto got_exp2 = out_exp2.read(), got_tanh = out_tanh.read();
  EXPECT_TRUE(std::isnan(got_exp2.back()) && std::isnan(got_tanh.back()));
  got_exp2.pop_back(), got_tanh.pop_back();
  for (int64_t i = n - 3; i < n; ++i) {  // beyond what a relative error says; 2^200 is no f32
    const float want = x[i] < 0 ? 0.0f : kInfinity;
    EXPECT_EQ(got_exp2[i], want) << x[i];
    exp2[i] = got_exp2[i] = 0;
  }
  EXPECT_EQ(got_exp2[n - 7], 1);
  EXPECT_EQ(got_exp2[n - 4], 0) << "subnormal results are flushed";
  EXPECT_EQ(got_tanh[n - 2], 1);
  EXPECT_EQ(got_tanh[n - 1], -1);
  expect_close(got_exp2, exp2, 0x1p-22);
  expect_close(got_tanh, tanh, 0x1p-11);
}

}  // namespace
}  // namespace gsae::test
