#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/gemma2.h"
#include "tools/run_sizes.h"

namespace gsae {

// What may be changed about a training run for it to take less memory. 0: chosen, to fit.
struct RunChoices {
  int64_t buffer = 0;       // --buffer, rows
  int64_t model_batch = 0;  // --model-batch, contexts of a forward pass
  int64_t context = 1024;   // --context
  int64_t batch = 4096;     // --batch
  DType dtype = DType::kBF16, precision = DType::kBF16;
  bool origins = false;        // the tokens behind the buffer's rows are kept
  std::vector<SaeShape> saes;  // of one pass over the data
};

struct RunPlan {
  MemoryPlan memory;
  SuitePlan suite;
  int64_t contexts = 0;  // of a forward pass
};
// A UsageError if what is asked for is impossible at any size of the memory.
using Planner = std::function<RunPlan(const RunChoices&)>;

// What no choice changes about a run that gets its activations from a model.
struct ModelRun {
  MemoryPlan machine;  // with what is there beside the run: the process, its text
  GemmaConfig config;
  const GemmaWeights* weights =
      nullptr;             // of the checkpoint, alive as long as the planner; none: as published, in bf16
  int64_t tokens = 0;      // of the run
  bool evaluates = false;  // with losses, so with the whole model, after the training
};
Planner model_planner(const ModelRun& run);

// Bytes of the weights that the CPU reads from a checkpoint's files for the layers [0, layers), the embedding included;
// what is never read takes no memory.
int64_t bytes_read(const GemmaWeights& weights, int64_t layers);

// Bytes that the text which waits to be shuffled takes at most.
int64_t text_bytes(const TokenStreamOptions& text);

}  // namespace gsae
