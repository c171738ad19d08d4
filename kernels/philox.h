#pragma once

#include <array>
#include <cstdint>

namespace gsae {

// Philox4x32-10: a counter-based generator, so that any random number of a run can be computed from
// (seed, purpose, step, index) alone, in any order and on any device.
//
// Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (Random123).
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

// One stream of random numbers: a run's seed, what the numbers are for, and the step that uses
// them.
class Random {
 public:
  enum Purpose : uint32_t {
    kInitDecoder,
    kShuffleRows,
    kSampleRows,
    kShuffleDocuments,
    kResample,
    kInitModel,
    kSampleExamples,
    kChooseLatents,
    kSampleTokens
  };

  constexpr Random(uint64_t seed, Purpose purpose, uint64_t step = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32) ^ (purpose * 0x9E3779B9u)}, step_(step) {}

  // Four words at `index` (below 2^64).
  constexpr std::array<uint32_t, 4> words(uint64_t index) const {
    return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(step_),
                       static_cast<uint32_t>(step_ >> 32)},
                      key_);
  }
  constexpr uint64_t bits(uint64_t index) const {
    const auto w = words(index);
    return uint64_t{w[0]} | uint64_t{w[1]} << 32;
  }
  constexpr float uniform(uint64_t index) const {  // [0, 1)
    return static_cast<float>(words(index)[0] >> 8) * 0x1p-24f;
  }
  // [0, n), by the high half of a 64 x 64-bit product: biased by less than n / 2^64.
  constexpr uint64_t below(uint64_t n, uint64_t index) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(bits(index)) * n) >> 64);
  }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t step_;
};

}  // namespace gsae
