#pragma once

#include <cstdint>
#include <string>

#include "model/config.h"

namespace gsae::bench {

// Writes a Gemma 2 checkpoint of random bf16 weights as Hugging Face publishes them: config.json, shards of about
// `shard_bytes` and their index. For what depends on a model's size and not on what it says. Weights are uniform
// with a deviation of inputs^-1/2, so that activations keep their scale; norms are those of (1 + 0).
// There is no tokenizer: it has to be copied beside it, or the text given as tokens.
//
// dir: made if it is not there. An Error if it holds a config.json.
void write_random_gemma(const std::string& dir, const GemmaConfig& shape, int64_t shard_bytes = int64_t{2} << 30);

}  // namespace gsae::bench
