#pragma once

#include <string>
#include <vector>

#include "io/token_stream.h"
#include "kernels/tensor.h"
#include "model/config.h"
#include "model/site.h"
#include "tools/options.h"

namespace gsae {

// Which model runs over which text: the options of every command that does so. A command that wants
// another default sets the field before add().
struct DataOptions {
  std::string model = "google/gemma-2-2b";  // a folder, a hub id, or demo
  std::string dtype = "bf16";               // of the model's products: bf16 or f32
  std::vector<std::string> data;            // empty: the bundled corpus, with a notice
  int64_t context = 0;                      // T; 0: 1024, or 256 for the demo model, or the model's limit if lower
  std::string text_field = "text";
  std::string token_dtype = "uint16";
  double eval_fraction = 0.02;
  bool skip_bad = false;

  void add(CLI::App& command);

  DType compute() const;
  int64_t context_for(const GemmaConfig& config) const;  // a UsageError beyond the model's positions

  // What TokenStream reads, for the model in folder `dir`; the caller sets split, shuffle and repeat.
  // Prints the notice when no --data is given.
  TokenStreamOptions stream(const std::string& dir, const GemmaConfig& config, const CommonOptions& common) const;
};

// "20", "0-25", "0-5,20" and "res,mlp": in the order given, each once. A UsageError lists what can be
// asked for. Without a config: layers of any model.
std::vector<int64_t> parse_layers(const std::string& text);
std::vector<int64_t> parse_layers(const std::string& text, const GemmaConfig& config);
std::vector<Site> parse_sites(const std::string& text);

}  // namespace gsae
