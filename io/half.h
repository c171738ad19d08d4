#pragma once

#include <bit>
#include <cstdint>

namespace gsae {

// IEEE binary16 to f32, exact; subnormals, infinities and NaN included. Without branches, so that
// loops over it vectorise.
inline float half_to_float(uint16_t h) {
  const uint32_t magnitude = uint32_t{h & 0x7fffu} << 13;
  const uint32_t exponent = magnitude & 0x0f800000u;
  const uint32_t normal = magnitude + (exponent == 0x0f800000u ? 0x70000000u : 0x38000000u);  // re-biased
  // subnormal: m * 2^-24, as (2^-14 + m * 2^-24) - 2^-14
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude + 0x38800000u) - 0x1p-14f);
  return std::bit_cast<float>((exponent == 0 ? subnormal : normal) | uint32_t{h & 0x8000u} << 16);
}

}  // namespace gsae
