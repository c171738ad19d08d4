// random_gemma SHAPE FOLDER: a checkpoint of random weights with the true shapes of 2b (5 GB), 9b, 27b or demo.
#include <fmt/format.h>

#include "bench/random_gemma.h"
#include "kernels/check.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: {} 2b|9b|27b|demo FOLDER\n", argv[0]);
    return 2;
  }
  try {
    gsae::bench::write_random_gemma(argv[2], gsae::named_shape(argv[1]));
  } catch (const std::exception& e) {
    fmt::print(stderr, "random_gemma: {}\n", e.what());
    return 1;
  }
  fmt::print("{}: random weights of {}'s shape, without a tokenizer\n", argv[2], argv[1]);
}
