#include "kernels/convert.h"

#include "tests/harness.h"

namespace gsae::test {
namespace {

// All 65536 of them: every finite bf16 and both infinities come back as they were, NaN as NaN.
TEST(ConvertCpu, EveryBf16ToF32AndBack) {
  Context ctx(Device::kCpu);
  std::vector<BF16> in(65536), out(65536);
  std::vector<float> wide(65536);
  for (uint32_t i = 0; i < 65536; ++i) in[i].bits = static_cast<uint16_t>(i);
  convert(ctx, view(wide.data(), {65536}), view(in.data(), {65536}));
  convert(ctx, view(out.data(), {65536}), view(wide.data(), {65536}));
  for (uint32_t i = 0; i < 65536; ++i) {
    const int exponent = i >> 7 & 0xff, mantissa = i & 0x7f;
    const double sign = i >> 15 ? -1 : 1;
    if (exponent == 255) {
      if (mantissa == 0) {
        EXPECT_EQ(wide[i], sign * HUGE_VAL);
        EXPECT_EQ(out[i].bits, i);
      } else {
        EXPECT_TRUE(std::isnan(wide[i]) && std::isnan(to_float(out[i]))) << i;
      }
      continue;
    }
    // the format's definition: 8 bits of exponent, 7 of mantissa
    const double value = sign * (exponent ? std::ldexp(128 + mantissa, exponent - 134) : std::ldexp(mantissa, -133));
    EXPECT_EQ(wide[i], value) << i;
    EXPECT_EQ(out[i].bits, i);
  }
}

// Between two neighbours: the nearer one, and the even one from the middle.
TEST(ConvertCpu, RoundsToNearestEven) {
  Context ctx(Device::kCpu);
  std::vector<float> in;
  std::vector<uint16_t> want;
  for (uint32_t i = 0; i < 0x7f7f; i += 13)
    for (const uint32_t sign : {0u, 0x8000u})
      for (const uint32_t offset : {1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
        in.push_back(std::bit_cast<float>((i | sign) << 16 | offset));
        const uint32_t up = offset > 0x8000 || (offset == 0x8000 && i % 2 == 1);
        want.push_back(static_cast<uint16_t>((i | sign) + up));
      }
  in.push_back(std::numeric_limits<float>::max());  // beyond the largest bf16's half step
  want.push_back(0x7f80);
  const int64_t n = static_cast<int64_t>(in.size());
  std::vector<BF16> out(n);
  convert(ctx, view(out.data(), {n}), view(in.data(), {n}));
  for (int64_t i = 0; i < n; ++i) ASSERT_EQ(out[i].bits, want[i]) << in[i];
}

TEST(ConvertCpu, SameDtypeCopiesEachElement) {
  Context ctx(Device::kCpu);
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto v = uniform(70001, 1, t, -9, 9);  // several ranges
    Guarded x(ctx, t, {70001}, v), out(ctx, t, {70001});
    convert(ctx, out, x);
    convert(ctx, x, x);
    EXPECT_EQ(out.read(), v);
    EXPECT_EQ(x.read(), v);
  }
}

TEST(ConvertCpu, RefusesWrongOperands) {
  Context ctx(Device::kCpu);
  Guarded x(ctx, DType::kF32, {4}), longer(ctx, DType::kBF16, {5});
  std::vector<int32_t> ints(4);
  EXPECT_THROW(convert(ctx, longer, x), Error);
  EXPECT_THROW(convert(ctx, x, view(ints.data(), {4})), Error);
  EXPECT_THROW(convert(ctx, view(ints.data(), {4}), x), Error);
}

}  // namespace
}  // namespace gsae::test
