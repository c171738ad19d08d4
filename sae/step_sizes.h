#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace gsae {

// How the work of an SAE's training step is cut, from its shapes alone.
struct StepSizes {
  int64_t batch = 0;  // B, rows of a step
  // the dense step: tiles of rows by latents, and the latents whose gradients exist at once. Fewer than all of them
  // cost a second encoder product.
  int64_t rows = 0, latents = 0;
  // the exactly sparse step: latents of a tile of pre-activations, and how many entries its lists hold
  int64_t select = 0, capacity = 0;
  // Entries of a step up to which the sparse step is the faster one.
  int64_t limit = 0;
};

StepSizes step_sizes(Device device, int64_t batch, int64_t width, int64_t latents);

}  // namespace gsae
