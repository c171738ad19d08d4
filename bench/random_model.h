#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/config.h"

namespace gsae::bench {

// A checkpoint of random weights in the form in which Gemma 2 is published: config.json, sharded bf16
// safetensors with their index. For memory and speed at sizes for which nobody has trained weights at
// hand; its text is noise, its loss about ln V + 1/2.
//
// A linear layer's weights have mean 0 and variance 1 / inputs, so that activations keep their scale
// from layer to layer; norm weights have standard deviation 0.1. Every weight is a function of
// (seed, tensor, index): the same on any machine, with any number of threads.
struct RandomModelOptions {
  GemmaConfig shape;     // of named_shape, or a part of it
  std::string out = "";  // folder; must not hold a model
  uint64_t seed = 0;
  int64_t shard_bytes = int64_t{2} << 30;  // of tensors in a file; one tensor may be larger
  std::string tokenizer = "";              // a tokenizer.model to copy; empty: none
};

struct WrittenModel {
  int64_t parameters = 0, bytes = 0;
  std::vector<std::string> files;
};
WrittenModel write_random_model(const RandomModelOptions& options);

}  // namespace gsae::bench
