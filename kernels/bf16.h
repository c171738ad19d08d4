#pragma once

#include <bit>
#include <cstdint>

namespace gsae {

// A bf16 that host code can round and print without CUDA headers; same bits as __nv_bfloat16.
struct BF16 {
  uint16_t bits;
};

// Round to nearest even, as the hardware does it; NaN stays NaN. Branch-free, so that loops over
// it vectorise.
inline BF16 to_bf16(float f) {
  const auto u = std::bit_cast<uint32_t>(f);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x40u;
  return {static_cast<uint16_t>((u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded)};
}
inline float to_float(BF16 b) { return std::bit_cast<float>(uint32_t{b.bits} << 16); }
inline float to_float(float f) { return f; }

// store(p, x): x as T, rounded once.
inline void store(float* p, float x) { *p = x; }
inline void store(BF16* p, float x) { *p = to_bf16(x); }

}  // namespace gsae
