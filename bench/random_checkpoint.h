#pragma once

#include <string>

#include "model/config.h"

namespace gsae::bench {

// Writes a checkpoint of this shape into a folder that exists, as Hugging Face lays it out: config.json
// and bf16 weights, in `shards` files with their index (1: a single file). Weights are uniform with a
// deviation of inputs^-1/2, norms of [-0.5, 0.5]: activations stay finite at any depth. The same seed
// gives the same bytes.
void write_random_checkpoint(const std::string& dir, const GemmaConfig& c, int shards, uint64_t seed);

}  // namespace gsae::bench
