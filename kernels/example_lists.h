#pragma once

// One latent's part of Examples, and how an activation joins it: the same code on both devices. For kernels/examples.*.

#include <bit>
#include <cstdint>

#include "kernels/examples.h"
#include "kernels/philox.h"

namespace gsae {

struct LatentExamples {
  static constexpr int kTop = Examples::kTop, kBins = Examples::kBins, kBands = Examples::kBands,
                       kPerBand = Examples::kPerBand;

  int32_t* scale;
  int32_t* histogram;  // (kBins)
  float* top_value;    // (kTop)
  int32_t* top_row;    // (kTop)
  float* band_value;   // (kBands, kPerBand)
  int32_t* band_row;   // (kBands, kPerBand)
  uint32_t* band_key;  // (kBands, kPerBand)

  // v > 0 and finite; rows ascend from call to call.
  constexpr void add(float v, int32_t row, int32_t T, const Random& random) const {
    if (const int e = scale_of(v); e > *scale) rescale(e);
    const int bin = bin_of(v, *scale);
    ++histogram[bin];
    insert_top(v, row, T);
    insert_band(bin / (kBins / kBands), v, row, random.words(static_cast<uint64_t>(row))[0]);
  }

 private:
  // v = 1.m * 2^(b - 127), or 0.m * 2^-126 where b is 0.
  static constexpr int biased_exponent(float v) { return static_cast<int>(std::bit_cast<uint32_t>(v) >> 23); }
  static constexpr int scale_of(float v) {
    const int e = biased_exponent(v) - 126;
    return e > Examples::kLeastScale ? e : Examples::kLeastScale;
  }
  // floor(v kBins / 2^e), in integers.
  static constexpr int bin_of(float v, int e) {
    static_assert(kBins == 64);
    const uint32_t bits = std::bit_cast<uint32_t>(v), fraction = bits & 0x7fffff;
    const int b = biased_exponent(v), shift = 18 + e - ((b > 0 ? b : 1) - 126);  // fraction: v * 2^(149 - max(b, 1))
    return shift < 32 ? static_cast<int>((b > 0 ? fraction | 0x800000 : fraction) >> shift) : 0;
  }

  // Parts 2^k times as wide: each joins what lies k places lower. Nothing is lost by it: the least keys of two sets are
  // among the least keys of either.
  constexpr void rescale(int e) const {
    const int k = *scale == Examples::kNoScale ? 0 : e - *scale;
    *scale = e;
    if (k == 0) return;
    for (int j = 1; j < kBins; ++j) {
      const int32_t n = histogram[j];
      histogram[j] = 0;
      histogram[k < 31 ? j >> k : 0] += n;
    }
    for (int j = 1; j < kBands; ++j)
      for (int s = j * kPerBand; s < (j + 1) * kPerBand && band_row[s] >= 0; ++s) {
        const int32_t row = band_row[s];
        band_row[s] = -1;
        insert_band(k < 31 ? j >> k : 0, band_value[s], row, band_key[s]);
      }
  }

  constexpr void insert_top(float v, int32_t row, int32_t T) const {
    if (top_row[kTop - 1] >= 0 && !(v > top_value[kTop - 1])) return;
    int at = 0;  // the place of this context, or the first free one, or the last, whose holder goes
    while (at < kTop - 1 && top_row[at] >= 0 && top_row[at] / T != row / T) ++at;
    if (top_row[at] >= 0 && top_row[at] / T == row / T && !(v > top_value[at])) return;
    for (; at > 0 && v > top_value[at - 1]; --at) top_value[at] = top_value[at - 1], top_row[at] = top_row[at - 1];
    top_value[at] = v, top_row[at] = row;
  }

  constexpr void insert_band(int band, float v, int32_t row, uint32_t key) const {
    float* values = band_value + band * kPerBand;
    int32_t* rows = band_row + band * kPerBand;
    uint32_t* keys = band_key + band * kPerBand;
    const auto before = [&](int s) { return key < keys[s] || (key == keys[s] && row < rows[s]); };
    int at = 0;  // the first free place, or the last
    while (at < kPerBand - 1 && rows[at] >= 0) ++at;
    if (rows[at] >= 0 && !before(at)) return;
    for (; at > 0 && before(at - 1); --at) {
      values[at] = values[at - 1], rows[at] = rows[at - 1], keys[at] = keys[at - 1];
    }
    values[at] = v, rows[at] = row, keys[at] = key;
  }
};

// As the parts of each latent lie behind one another.
struct ExampleTables {
  LatentExamples first;
  int32_t* count;
  double* sum;
  int32_t* faults;

  explicit ExampleTables(const Examples& e)
      : first{e.scale.data<int32_t>(),
              e.histogram.data<int32_t>(),
              e.top_value.data<float>(),
              e.top_row.data<int32_t>(),
              e.band_value.data<float>(),
              e.band_row.data<int32_t>(),
              reinterpret_cast<uint32_t*>(e.band_key.data<int32_t>())},
        count(e.count.data<int32_t>()),
        sum(e.sum.data<double>()),
        faults(e.faults.data<int32_t>()) {}

  constexpr LatentExamples of(int64_t i) const {
    constexpr int kInBands = Examples::kBands * Examples::kPerBand;
    return {first.scale + i,
            first.histogram + i * Examples::kBins,
            first.top_value + i * Examples::kTop,
            first.top_row + i * Examples::kTop,
            first.band_value + i * kInBands,
            first.band_row + i * kInBands,
            first.band_key + i * kInBands};
  }
};

// Whether an activation is one to be remembered; NaN and infinity are not.
constexpr bool is_finite_activation(float v) { return (std::bit_cast<uint32_t>(v) & 0x7f800000) != 0x7f800000; }

}  // namespace gsae
