#pragma once

#include <cstdint>
#include <vector>

#include "kernels/context.h"
#include "tools/memory_plan.h"
#include "tools/row_source.h"

namespace gsae {

// How the work of a training run is cut, and what it holds while it trains: one answer for `train`, for `bench`, which
// measures what `train` would do, and for `plan`, which only says it.

// Activations that a shuffle buffer holds where memory and the length of the run allow.
constexpr int64_t kLargestBuffer = 1'000'000;
// Batches that it holds at least, if nobody says how large it is to be: the rows of a context resemble each other, and
// a buffer of few contexts hardly mixes them.
constexpr int64_t kFewestBatches = 16;

// What this process will hold in the end beside what its plan names: what it holds now, and what comes later: stacks,
// oneDNN's compiled products, the tokenizer, what the allocator keeps of what was freed.
int64_t process_bytes();

// Contexts of T tokens per forward pass, if none are asked for (0).
int64_t contexts_of_pass(Device device, int64_t asked, int64_t T);

// One SAE of a run, and how sparse it is to be.
struct SaeShape {
  Place place;                     // SAEs of one place share its rows, and so its width
  int64_t width = 0, latents = 0;  // d, F
  double l0 = 0;
};
bool same_place(const SaeShape& a, const SaeShape& b);
// One of each place, in the order in which they first come.
std::vector<SaeShape> places_of(const std::vector<SaeShape>& saes);

// The SAEs of one pass over the data, and the rows that they wait for.
struct SuiteSizes {
  int64_t batch = 0;
  DType precision = DType::kBF16;  // of the products and of the rows that wait
  std::vector<SaeShape> saes;
  int64_t chunk = 0;             // the most rows that arrive at once
  int64_t row_bytes = 0;         // on the host, for what is known about each row of the buffer
  int64_t asked = 0;             // rows of the buffer, as --buffer says; 0: chosen
  int64_t wanted = 0, most = 0;  // chosen: no more than this; ever: no more than this and what fills a batch
};

struct SuitePlan {
  int64_t rows = 0;   // of the buffer, the same number at each place
  int64_t least = 0;  // that it could have
  int64_t bytes = 0;  // on the device, all of it
};

// Adds all of it to a plan that has the rest already: the states, which add up; the workspace, which all share, as they
// step one after the other; the buffers, one for each place. What is not asked for is chosen to fit, as large as is
// wanted. A UsageError if what is asked for could never fill a batch.
SuitePlan plan_suite(Device device, MemoryPlan& plan, const SuiteSizes& sizes);

}  // namespace gsae
