#include "tools/device_preset.h"

#include <fmt/format.h>

#include "kernels/check.h"

namespace gsae {

const std::vector<DevicePreset>& device_presets() {
  constexpr double kGiB = 1 << 30;
  // NVIDIA's data sheets: A100 (June 2021), H100 (2023), H200 (2024), and the white paper of Ada (2022). What they say
  // with sparsity is halved.
  static const std::vector<DevicePreset> presets{
      {"a100", "A100 80GB SXM", 80 * kGiB, 312e12, 156e12, 19.5e12, 2.039e12},
      {"h100", "H100 80GB SXM", 80 * kGiB, 989e12, 494e12, 67e12, 3.35e12},
      {"h200", "H200 141GB SXM", 141 * kGiB, 989e12, 494e12, 67e12, 4.8e12},
      {"4090", "GeForce RTX 4090", 24 * kGiB, 165.2e12, 82.6e12, 82.6e12, 1.008e12}};
  return presets;
}

const DevicePreset& device_preset(const std::string& name) {
  std::string known;
  for (const DevicePreset& p : device_presets()) {
    if (p.name == name) return p;
    known += (known.empty() ? "" : ", ") + p.name;
  }
  throw Error(
      fmt::format("unknown GPU '{}': known are {}; describe others with --device-memory, --peak-flops and "
                  "--bandwidth",
                  name, known));
}

}  // namespace gsae
