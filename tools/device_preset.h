#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor.h"

namespace gsae {

// A GPU as its maker's data sheet describes it; dense products, without sparsity.
struct DevicePreset {
  std::string name;                    // of --gpu
  std::string title;                   // of the product that the figures are of
  double memory = 0;                   // bytes
  double bf16 = 0, tf32 = 0, f32 = 0;  // FLOP/s of products with f32 accumulation, by operands
  double bandwidth = 0;                // bytes/s of its memory
};
const std::vector<DevicePreset>& device_presets();
const DevicePreset& device_preset(const std::string& name);  // an Error lists them

// What programs get of that. Products and copies, of the figures of the data sheet: clocks fall under load. An H200
// gave 790 of 989 TFLOP/s and 4.3 of 4.8 TB/s.
constexpr double kProductReach = 0.8, kCopyReach = 0.9;
// Of the memory, beside the plan: the driver, CUDA's context, kernels, graphs.
constexpr double kDriverBytes = 2.0 * (1 << 30);

// What the time of a run is reckoned with: FLOP/s and bytes/s that products and copies reach.
struct DeviceSpeed {
  double model_products = 0, sae_products = 0;
  double memory = 0;
  double cache = 0;  // gathers that hit the last-level cache
};
// Of a cache twice the memory's: low for GPUs (an H100's gives about 5.5 TB/s, a 4090's five times its memory's).
constexpr double kCacheOverMemory = 2;

}  // namespace gsae
