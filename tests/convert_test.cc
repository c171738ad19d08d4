#include "kernels/convert.h"

#include "tests/values_on_device.h"

namespace gsae::test {
namespace {

struct Convert : OnDevice {
  template <class Out, class In> std::vector<Out> converted(const std::vector<In>& in) {
    const auto x = on_device(ctx, in), out = on_device(ctx, std::vector<Out>(in.size()));
    convert(ctx, out, x);
    return download<Out>(ctx, out);
  }
};
ON_DEVICES(Convert);

// All 65536 of them: every finite bf16 and both infinities come back as they were, NaN as NaN.
TEST_P(Convert, EveryBf16ToF32AndBack) {
  std::vector<BF16> in(65536);
  for (uint32_t i = 0; i < 65536; ++i) in[i].bits = static_cast<uint16_t>(i);
  const std::vector<float> wide = converted<float>(in);
  const std::vector<BF16> out = converted<BF16>(wide);
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
TEST_P(Convert, RoundsToNearestEven) {
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
  const std::vector<BF16> out = converted<BF16>(in);
  for (size_t i = 0; i < in.size(); ++i) ASSERT_EQ(out[i].bits, want[i]) << in[i];
}

TEST_P(Convert, SameDtypeCopiesEachElement) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    const auto v = uniform(70001, 1, t, -9, 9);  // several ranges
    Guarded x(ctx, t, {70001}, v), out(ctx, t, {70001});
    convert(ctx, out, x);
    convert(ctx, x, x);
    EXPECT_EQ(out.read(), v);
    EXPECT_EQ(x.read(), v);
  }
}

// One element, an access and a bit, one more than a block; views that start between two accesses.
TEST_P(Convert, AnySizeAndAlignment) {
  for (const int64_t n : {1, 9, 1025, 2049})
    for (const bool narrow : {false, true}) {
      const DType from = narrow ? DType::kF32 : DType::kBF16, to = narrow ? DType::kBF16 : DType::kF32;
      const auto v = uniform(n, 1, DType::kBF16, -9, 9);
      Guarded x(ctx, from, {n}, v), out(ctx, to, {n}), shifted(ctx, to, {n + 3});
      convert(ctx, out, x);
      convert(ctx, Tensor(shifted).rows(3, n + 3), x);
      const auto tail = shifted.read();
      EXPECT_EQ(out.read(), v);
      EXPECT_EQ(std::vector<float>(tail.begin() + 3, tail.end()), v);
    }
}

TEST_P(Convert, RefusesWrongOperands) {
  Guarded x(ctx, DType::kF32, {4}), longer(ctx, DType::kBF16, {5});
  const auto ints = on_device(ctx, std::vector<int32_t>(4));
  EXPECT_THROW(convert(ctx, longer, x), Error);
  EXPECT_THROW(convert(ctx, x, ints), Error);
  EXPECT_THROW(convert(ctx, ints, x), Error);
}

}  // namespace
}  // namespace gsae::test
