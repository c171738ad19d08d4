#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <chrono>

#include "bench/random_model.h"
#include "tools/memory_plan.h"
#include "tools/options.h"

int main(int argc, char** argv) {
  using namespace gsae;
  CLI::App app("Writes a checkpoint of random weights in the shape of a Gemma 2 model.", "write_random_model");
  bench::RandomModelOptions options;
  std::string shape = "2b", shard_bytes = "2G";
  int64_t layers = 0;
  app.add_option("--shape", shape, "2b, 9b, 27b or demo")->capture_default_str();
  app.add_option("--out", options.out, "the folder to write; must not hold a model")->required();
  app.add_option("--layers", layers, "fewer layers than the shape has; 0: all")->capture_default_str();
  app.add_option("--seed", options.seed, "of the weights")->capture_default_str();
  app.add_option("--shard-bytes", shard_bytes, "of tensors in a file, such as 2G")->capture_default_str();
  app.add_option("--tokenizer", options.tokenizer, "a tokenizer.model to put beside them");
  CLI11_PARSE(app, argc, argv);
  try {
    options.shape = named_shape(shape);
    if (layers < 0 || layers > options.shape.layers)
      throw Error(fmt::format("--layers {}: {} has 1 to {}", layers, shape, options.shape.layers));
    if (layers > 0) options.shape.layers = layers, options.shape.sliding.resize(static_cast<size_t>(layers));
    options.shard_bytes = parse_count(shard_bytes);
    const auto start = std::chrono::steady_clock::now();
    const bench::WrittenModel model = bench::write_random_model(options);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    fmt::print("{}: shape {}, {} layers, {} parameters in bf16, {} in {} files, {:.1f} s\n", options.out, shape,
               options.shape.layers, model.parameters, format_bytes(model.bytes), model.files.size(), seconds.count());
    return 0;
  } catch (const std::exception& e) {
    fmt::print(stderr, "write_random_model: {}\n", e.what());
    return 1;
  }
}
