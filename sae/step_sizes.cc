#include "sae/step_sizes.h"

#include <algorithm>
#include <limits>

namespace gsae {

namespace {

constexpr int64_t kF32 = sizeof(float);

// On the CPU what is (rows, F) should stay in the caches; a GPU takes the whole batch, as long as its four (rows, F)
// tensors stay within 2 GiB: each further tile reads and writes the weights' gradients again.
int64_t dense_rows(Device device, int64_t latents) {
  constexpr int64_t kCpuTile = 512, kGpuBytes = int64_t{2} << 30, kBytesOfLatent = 16;
  if (device == Device::kCpu) return kCpuTile;
  return std::max(kGpuBytes / (kBytesOfLatent * latents) / kCpuTile * kCpuTile, kCpuTile);
}

// All latents, unless their gradients take more memory than a wide SAE leaves. Wide ones are hardly ever dense: the
// second encoder product costs less than memory that is idle else.
int64_t dense_latents(Device device, int64_t width, int64_t latents) {
  constexpr int64_t kMultiple = 64;
  const int64_t bytes = device == Device::kCpu ? int64_t{512} << 20 : int64_t{1} << 30;
  const int64_t fit = std::max<int64_t>(bytes / (2 * width * kF32) / kMultiple, 1) * kMultiple;
  return std::min(latents, fit);
}

// A tile of pre-activations that is still in the second-level cache when its entries are selected.
int64_t select_latents(Device device, int64_t batch, int64_t latents) {
  const int64_t bytes = device == Device::kCpu ? int64_t{2} << 20 : int64_t{32} << 20;
  constexpr int64_t kMultiple = 64;  // fewer starve the product
  return std::min(latents, std::max<int64_t>(bytes / (batch * kF32) / kMultiple, 1) * kMultiple);
}

// Where the sparse step stops to pay: what it saves are four products of 2 B d F FLOP, what it costs are four passes
// over a row of d for each entry. Measured on the CPU (docs/sparse-step.md), by design on a GPU.
double break_even(Device device) { return device == Device::kCpu ? 0.08 : 0.005; }

}  // namespace

StepSizes step_sizes(Device device, int64_t batch, int64_t width, int64_t latents) {
  StepSizes s;
  s.batch = batch;
  s.rows = std::min(batch, dense_rows(device, latents));
  s.latents = dense_latents(device, width, latents);
  s.select = select_latents(device, batch, latents);
  const double all = double(batch) * double(latents);
  s.limit = static_cast<int64_t>(break_even(device) * all);
  // Room for twice the most that the step is chosen for, and for all latents of a narrow SAE; 1024 a row is enough for
  // whatever is called sparse.
  const int64_t most = std::min(batch * std::min<int64_t>(latents, 1024), int64_t{std::numeric_limits<int32_t>::max()});
  s.capacity = std::clamp(2 * s.limit, std::min(most, batch * 64), most);
  s.limit = std::min(s.limit, s.capacity / 10 * 9);
  return s;
}

}  // namespace gsae
