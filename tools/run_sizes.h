#pragma once

#include <cstdint>

#include "kernels/context.h"
#include "sae/recipe.h"
#include "tools/memory_plan.h"

namespace gsae {

// How the work of a training run is cut, and what it holds while it trains: one answer for `train`, and for `bench`,
// which measures what `train` would do.

// What a process needs beside its plan: code, libraries, stacks, oneDNN's compiled products; and a context's workspace,
// on the CPU.
constexpr int64_t kProcessBytes = (int64_t{96} << 20) + static_cast<int64_t>(Context::kWorkspaceBytes);

// Activations that a shuffle buffer holds where memory and the length of the run allow.
constexpr int64_t kLargestBuffer = 1'000'000;

// Rows per tile of the step of an SAE with so many latents.
int64_t tile_rows(const Context& ctx, int64_t latents);

// Contexts of T tokens per forward pass, if none are asked for (0).
int64_t contexts_of_pass(const Context& ctx, int64_t asked, int64_t T);

// One SAE, and the rows that it waits for.
struct SaeSizes {
  Recipe recipe;
  int64_t width = 0, latents = 0;  // d, F
  DType precision = DType::kBF16;  // of its products and of the rows that wait
  int64_t chunk = 0;               // the most rows that arrive at once
  int64_t asked = 0;               // rows of the buffer, as --buffer says; 0: chosen
  int64_t wanted = 0, most = 0;    // chosen: no more than this; ever: no more than this and what fills a batch
};

struct SaePlan {
  int64_t rows = 0;   // of the buffer
  int64_t bytes = 0;  // on the device, all of it
};

// Adds all of it to a plan that has the rest already. What is not asked for is chosen to fit. A UsageError if what is
// asked for could never fill a batch.
SaePlan plan_sae(const Context& ctx, MemoryPlan& plan, const SaeSizes& sizes);

}  // namespace gsae
